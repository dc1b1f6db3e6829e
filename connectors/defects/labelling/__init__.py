"""The page on which a person labels images, and the labels that come of it."""
