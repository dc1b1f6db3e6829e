"""Formats that a trained net leaves the house in, one file each, and the check before each."""
