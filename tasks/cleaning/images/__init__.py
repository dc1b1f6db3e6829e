"""Cleaning of image folders: sandboxed decoding, features, checks against a line's reference."""
