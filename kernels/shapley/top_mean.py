"""Exact Shapley values of a maximum, or of a mean of the highest, of any number of players.

The game: of n cells, those in a coalition have their own level, the others a common base; a
coalition is worth the mean of the k highest levels of all n cells. With k = 1 and a base below all
levels it is the airport game (Littlechild and Owen 1973).

Why it has a closed form: a mean of the highest is an integral over thresholds t of
``min(k, number of cells above t) / k``. Above the base only members with a level above t count, and
they count alike: a symmetric game, in which each of m such players has ``min(k, m) / m``. Below the
base the cells that leave are those with a level up to t: m of them take away
``max(0, m - (n - k)) / m`` each. One sort gives all integrals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def top_mean(levels: Float, count: int) -> float:
    """Return the mean of the ``count`` highest levels ``[n]``, of all where there are fewer."""
    kept = min(count, len(levels))
    return float(np.partition(levels, len(levels) - kept)[len(levels) - kept :].mean())


def top_mean_values(levels: Float, count: int, base: float) -> Float:
    """Return the Shapley values ``[n]``; they add up to ``top_mean(levels, count) - base``.

    Args:
        levels: Of the cells, finite, ``[n]``, such as distances of patches.
        count: How many of the highest are averaged, at least 1; 1 is the maximum.
        base: Level of a cell that is absent: what good images have, or the threshold.

    Raises:
        ValueError: On no cell, a count below 1, or a level or base that is not finite.

    >>> top_mean_values(np.array([1.0, 3.0]), 1, 0.0).tolist()
    [0.5, 2.5]
    """
    levels = np.asarray(levels, dtype=np.float64)
    if levels.ndim != 1 or not len(levels) or count < 1:
        raise ValueError(
            f"levels of shape {levels.shape}, count {count}: give one level per cell, of at least "
            "one cell, and a count of at least 1"
        )
    if not (np.isfinite(levels).all() and np.isfinite(base)):
        raise ValueError("a level or the base is not finite; mend the pixels they come from")
    n = len(levels)
    kept = min(count, n)
    order = np.argsort(-levels, kind="stable")
    falling = levels[order]
    players = np.arange(1, n + 1)
    values = np.zeros(n)
    # Slices of thresholds between neighbouring levels, cut off at the base.
    high = np.maximum(falling, base)
    slices = high - np.append(high[1:], base)
    values[order] += _from_behind(slices * np.minimum(kept, players) / players)
    low = np.minimum(falling[::-1], base)
    slices = np.append(low[1:], base) - low
    values[order[::-1]] -= _from_behind(slices * np.maximum(0, players - (n - kept)) / players)
    return values / kept


def _from_behind(parts: Float) -> Float:
    return np.asarray(np.cumsum(parts[::-1])[::-1])
