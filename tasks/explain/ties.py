"""When two reasons are as good as each other within their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

TIE_ERRORS = 2.0
"""Standard errors of a difference below which another background may turn it around.

Another background moves the difference by sqrt(2) standard errors, as both have an error of their
own. At two standard errors it turns the order around in eight of a hundred cases, at one in 24; of
all that are turned around, nine in ten lie below two, two in three below one (normal errors)."""

ROUNDING = 1e-7
"""Part of a row's largest value that float32 scores do not settle."""
SUM_ROUNDING = 1e-14
"""The same of the scores whose differences are summed, in float64."""


def tied(
    stronger: float, weaker: float, error: float, other_error: float, rounding: float = 0.0
) -> bool:
    """Tell whether two contributions are no further apart than their standard errors explain.

    Args:
        stronger: The larger one.
        weaker: The other one.
        error: Standard error of the first.
        other_error: Of the other one.
        rounding: What digits do not settle, see ``rounding_of``.

    >>> tied(1.0, 0.9, 0.05, 0.05), tied(1.0, 0.7, 0.05, 0.05)
    (True, False)
    >>> tied(0.1 + 0.2, 0.3, 0.0, 0.0, rounding_of([0.3]))
    True
    """
    return stronger - weaker <= max(TIE_ERRORS * math.hypot(error, other_error), rounding)


def rounding_of(values: Sequence[float]) -> float:
    """Return the difference of a row's contributions that float32 scores do not settle."""
    return ROUNDING * max(map(abs, values), default=0.0)


def apart(first: Float, second: Float, error: Float, other: Float) -> NDArray[np.bool_]:
    """Say where the first value is larger than the second beyond the error of the difference."""
    return first - second > TIE_ERRORS * np.hypot(error, other)


def order_of(values: Float) -> NDArray[np.intp]:
    """Return the players of each row of ``[n, P]``, what raised the score most first."""
    return np.argsort(-values, axis=1, kind="stable")


def ties_of(values: Float, errors: Float, base: float, scores: Float) -> NDArray[np.bool_]:
    """Return whether errors leave open which of a place and the next is larger ``[n, P - 1]``.

    Places are those of ``order_of``. Players of exact values that differ by no more than rounding
    tie, too.

    Args:
        values: Contributions ``[n, P]``.
        errors: Standard error of each ``[n, P]``.
        base: What they are added to.
        scores: What they add up to ``[n]``.
    """
    order = order_of(values)
    ranked = np.take_along_axis(values, order, axis=1)
    summed = np.abs(scores) + abs(base)
    rounding = ROUNDING * np.abs(ranked).max(axis=1, initial=0.0) + SUM_ROUNDING * summed
    error = np.hypot(np.take_along_axis(errors, order, axis=1), rounding[:, None] / TIE_ERRORS)
    return ~apart(ranked[:, :-1], ranked[:, 1:], error[:, :-1], error[:, 1:])
