"""Scoring heads: trees, logistic regression, small MLP; each calibrated, each exports to ONNX."""

from __future__ import annotations

from tasks.fraud.heads.head import Head, HeadError, Scorer
from tasks.fraud.heads.logistic import LogisticConfig, fit_logistic
from tasks.fraud.heads.mlp import MlpConfig, fit_mlp
from tasks.fraud.heads.trees import TreeConfig, fit_trees

__all__ = [
    "Head",
    "HeadError",
    "LogisticConfig",
    "MlpConfig",
    "Scorer",
    "TreeConfig",
    "fit_logistic",
    "fit_mlp",
    "fit_trees",
]
