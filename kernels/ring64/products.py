"""Matrix products that wrap around at 2**64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing

Words = NDArray[np.uint64]


@compiled_releasing
def _product(rows: Any, weights: Any, out: Any) -> None:
    n_rows, n_inputs = rows.shape
    for i in range(n_rows):
        for h in range(len(weights)):
            total = np.uint64(0)
            for j in range(n_inputs):
                total += rows[i, j] * weights[h, j]
            out[i, h] = total


def product(rows: Words, weights: Words) -> Words:
    """Return ``rows @ weights.T`` modulo 2**64.

    Args:
        rows: uint64 [n, G].
        weights: uint64 [H, G].

    Returns:
        uint64 [n, H].
    """
    if rows.ndim != 2 or weights.ndim != 2 or rows.shape[1] != weights.shape[1]:
        raise ValueError(f"rows {list(rows.shape)} do not fit weights {list(weights.shape)}")
    out = np.empty((len(rows), len(weights)), np.uint64)
    _product(np.ascontiguousarray(rows), np.ascontiguousarray(weights), out)
    return out
