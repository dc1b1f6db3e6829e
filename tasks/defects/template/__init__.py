"""Golden sample: images of a print or a board, compared with those that are as they should be."""
