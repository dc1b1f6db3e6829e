"""Explanations of scores of images: by segments for any score function."""
