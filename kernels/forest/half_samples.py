"""Weights of background rows whose means tell how far another background would move a value.

A value that is the mean of ``m`` rows has a standard error. Rather than one value per row, as the
variance would need, a few differences between two halves of the rows tell it (balanced half-sample
replication, McCarthy 1969, "Pseudo-replication: half samples"): with signs +1 and -1, as many of
each, drawn at random, ``mean(sign * value)`` has mean 0 and the variance of the mean of the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.forest.trees import ForestError

_SEED = 1969
"""Fixed: the same background gives the same errors everywhere."""


def half_sample_weights(rows: int, models: int, replicates: int) -> NDArray[np.float64]:
    """Return float64 [K, 1 + R, m], weights of the background rows for each model.

    The first of a model are 1 / m. The squares of what the other R of all models give add up to an
    estimate of the variance of the first, without bias if the models agree, with R * K degrees of
    freedom.

    Args:
        rows: Background rows m.
        models: Models K; each has signs of its own.
        replicates: Half samples R of each model; 0: no more than the means.

    Raises:
        ForestError: On a single row, which has no halves.
    """
    weights = np.full((models, 1 + replicates, rows), 1.0 / rows)
    if not replicates:
        return weights
    if rows < 2:
        raise ForestError("half samples need at least two background rows; freeze more of them")
    half = rows // 2
    signs = np.zeros(rows)
    signs[:half], signs[half : 2 * half] = 1.0, -1.0
    signs *= np.sqrt(rows / (2 * half) / (replicates * models)) / rows  # an odd row is left out
    rng = np.random.default_rng(_SEED)
    for model in weights:
        for replicate in model[1:]:
            replicate[:] = rng.permutation(signs)
    return weights
