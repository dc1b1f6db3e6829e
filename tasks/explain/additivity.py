"""The check that every explanation passes: contributions add up to the score, or it is an error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import AdditivityError

TOLERANCE = 1e-6
"""Largest additivity gap, relative to ``1 + |raw score|``."""


def check_additivity(
    contributions: NDArray[np.float64],
    base: float,
    raw_score: NDArray[np.float64],
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the largest additivity gap of rows ``[n, F]``.

    Raises:
        AdditivityError: When a row misses its raw score by more than
            ``tolerance * (1 + |raw score|)``.
    """
    gap = np.abs(base + contributions.sum(axis=1) - raw_score)
    bad = ~(gap <= tolerance * (1.0 + np.abs(raw_score)))
    if bad.any():
        row = int(np.argmax(np.where(bad, np.nan_to_num(gap, nan=np.inf), -1.0)))
        raise AdditivityError(
            f"explanation of row {row} misses its score by {gap[row]:.3g} "
            f"({int(bad.sum())} of {len(gap)} rows beyond {tolerance:g}): no reasons are given; "
            "explain the very model that made the scores"
        )
    return float(gap.max(initial=0.0))
