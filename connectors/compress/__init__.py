"""Models to compress, with their data, and where the compressed ones go."""
