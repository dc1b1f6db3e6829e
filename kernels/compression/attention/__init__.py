"""Attention with fewer heads and fewer tokens."""
