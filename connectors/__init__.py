"""Doors to the outside world: files, MLflow tracking and registry, later streams and the API."""
