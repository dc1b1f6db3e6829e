"""Data of an inspection: folder layouts, annotations, masks, groups, splits."""
