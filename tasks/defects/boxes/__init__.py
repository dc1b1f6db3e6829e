"""Boxes around defects, with types and scores, from a few images with boxes."""
