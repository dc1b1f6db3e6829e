"""Duplicates: rows that are equal, rows that mean the same thing, and links between two tables."""
