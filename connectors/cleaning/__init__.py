"""Files that the cleaning engine reads and publishes."""
