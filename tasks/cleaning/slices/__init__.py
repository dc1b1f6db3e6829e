"""Bias report: how a figure differs between slices of a table, and how sure that is."""
