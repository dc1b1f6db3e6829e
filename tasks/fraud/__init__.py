"""Fraud scoring: dataset config, checks, features, training, evaluation, bundle, report."""
