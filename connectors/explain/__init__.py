"""Explanations at the doors: kept on disk, logged to MLflow, of models that users bring."""
