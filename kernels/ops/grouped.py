"""Sums of a row's values over groups, with their spread over several models, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled

Reals = NDArray[np.float64]


@compiled
def grouped_mean_and_error(
    values: Reals, variance: Reals, group: NDArray[np.int64], groups: int
) -> tuple[Reals, Reals, Reals]:
    """Sum the values of K models into groups; return what the models agree on.

    Args:
        values: float64 [K, F].
        variance: float64 [G], variance of each mean that the models do not show.
        group: int64 [F], group 0..G-1 of each column.
        groups: Number of groups G.

    Returns:
        Mean over the models [G], its standard error [G] from both sources (a single model shows no
        spread), and the mean of every column [F].
    """
    k, width = values.shape
    sums = np.zeros((k, groups))
    single = np.zeros(width)
    for m in range(k):
        for f in range(width):
            sums[m, group[f]] += values[m, f]
            single[f] += values[m, f]
    for f in range(width):
        single[f] /= k
    mean, error = np.zeros(groups), np.zeros(groups)
    for g in range(groups):
        for m in range(k):
            mean[g] += sums[m, g]
        mean[g] /= k
        if k > 1:
            for m in range(k):
                error[g] += (sums[m, g] - mean[g]) ** 2
            error[g] /= (k - 1) * k
    for g in range(groups):
        error[g] = np.sqrt(error[g] + variance[g])
    return mean, error, single
