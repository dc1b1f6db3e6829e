"""A few labelled rows: which to label next, and what they say about all other cells."""
