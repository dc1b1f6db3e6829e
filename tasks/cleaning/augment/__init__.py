"""Rows and images made for measured gaps, with their provenance and a guard against leaks."""
