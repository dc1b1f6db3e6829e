"""Searches for hyper-parameters as steps of a flow, tracked in MLflow."""
