"""Detectors: each a plain function from a frame of texts to findings."""
