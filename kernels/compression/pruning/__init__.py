"""Smaller nets: channels that are taken out for good, with whatever depends on them."""
