"""Drift: whether a table still looks like a reference."""
