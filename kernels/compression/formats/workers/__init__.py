"""Scripts that the Python of another environment runs; they import nothing of the project."""
