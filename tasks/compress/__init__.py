"""Compression planned: which methods, in which order, for a device and a budget."""
