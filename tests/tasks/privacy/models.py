"""Models of every kind that is compiled, small enough for tests."""

from __future__ import annotations

import numpy as np

from tasks.privacy.encoding import plain_encoding
from tasks.privacy.model import PrivateModel, linear_model, power_model

INPUTS = 7


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Rows such as will come."""
    return np.random.default_rng(seed).normal(size=(n, INPUTS))


def made(kind: str, seed: int = 0) -> PrivateModel:
    """A model: linear, classes, square, cube, square classes."""
    rng = np.random.default_rng(seed)
    encoding = plain_encoding(rows(500, 99), margin=2.0)
    if kind == "linear":
        return linear_model(encoding, rng.normal(size=INPUTS), 0.3)
    if kind == "classes":
        return linear_model(encoding, rng.normal(size=(3, INPUTS)), [1.0, -2.0, 0.5])
    scores = 3 if kind == "square classes" else 1
    layers = [
        (rng.normal(size=(5, INPUTS)) * 0.3, rng.normal(size=5)),
        (rng.normal(size=(scores, 5)) * 0.4, rng.normal(size=scores)),
    ]
    return power_model(encoding, layers, 3 if kind == "cube" else 2)


KINDS = ("linear", "classes", "square", "cube", "square classes")
