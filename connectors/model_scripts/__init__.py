"""Scripts that MLflow stores beside the files of a model, one per kind of model."""
