"""Augmentation: images of a line as other cameras, other light and other parts would give them."""
