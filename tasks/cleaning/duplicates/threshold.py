"""Thresholds that promise a precision: by the model's own probabilities, or by labelled pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Promise:
    """A threshold and what it promises.

    Attributes:
        log_odds: Lowest log-odds of a link; infinite where no threshold keeps the promise.
        precision: Expected precision from there on, or its lower bound.
        links: Number of pairs from there on.
    """

    log_odds: float
    precision: float
    links: int


NO_LINKS = Promise(float("inf"), 1.0, 0)
"""The promise of who links nothing."""


def promised(odds: Array, precision: float) -> Promise:
    """Return the lowest threshold whose links are right to a given share by their own odds.

    A pair that is more likely false than true is never linked, however much the others would
    allow. The promise is as good as the model, which takes comparisons for independent within true
    and within false pairs. Where it matters, label some pairs (:func:`promised_by_labels`).
    """
    falling = -np.sort(-np.asarray(odds, np.float64))
    falling = falling[falling >= 0]
    mean = np.cumsum(1 / (1 + np.exp(-falling))) / np.arange(1, len(falling) + 1)
    # Falling odds have a falling mean; of equal odds all or none are linked.
    kept = falling[: int(np.searchsorted(-mean, -precision, side="right"))]
    if len(kept) < len(falling):
        kept = kept[kept > falling[len(kept)]]
    if len(kept) == 0:
        return NO_LINKS
    return Promise(float(kept[-1]), float(mean[len(kept) - 1]), len(kept))


def promised_by_labels(
    odds: Array,
    same: NDArray[np.bool_],
    precision: float,
    *,
    confidence: float = 0.95,
    steps: int = 10,
) -> Promise:
    """Return the lowest threshold that keeps a precision by labelled pairs, with a confidence.

    Args:
        odds: float64 [pairs] of labelled pairs, drawn at random from those to decide on.
        same: bool [pairs] whether they are one entity.
        precision: The promise.
        confidence: That it is kept: exact (Clopper-Pearson) bounds, shared out over the thresholds.
        steps: Number of thresholds tried, which have equal numbers of pairs between them.
    """
    from scipy.stats import beta

    if len(odds) == 0:
        return NO_LINKS
    falling = -np.sort(-np.asarray(odds, np.float64))
    tried = falling[(len(falling) * np.arange(1, steps + 1)) // steps - 1]
    best = NO_LINKS
    for threshold in tried.tolist():
        linked = odds >= threshold
        n, right = int(linked.sum()), int(same[linked].sum())
        lower = float(beta.ppf((1 - confidence) / steps, right, n - right + 1)) if right else 0.0
        if lower >= precision:
            best = Promise(threshold, lower, n)
    return best
