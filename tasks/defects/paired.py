"""Paired bootstrap: is one detector better than another on the same held-out parts?

Whole parts are drawn with replacement (a cluster bootstrap, Field and Welsh 2007), good and
defective ones apart so that every draw has both. Both detectors see the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_PARTS = 5
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class PairedResult:
    """AUROC of two detectors on the same images, and the interval of their difference.

    Attributes:
        first: AUROC of the first.
        second: AUROC of the second.
        difference: ``first - second``.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        ok_parts: Good parts compared.
        ng_parts: Defective parts compared.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    ok_parts: int
    ng_parts: int


def compare_paired(
    defective: NDArray[np.bool_],
    part: Sequence[str],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 2018,
) -> PairedResult:
    """Compare two detectors by AUROC.

    Args:
        defective: bool [n].
        part: [n] part of each image; its images are drawn together. A part with images of both
            kinds is drawn with each.
        first: [n] scores of the detector that wants to win.
        second: [n] scores of its rival.
        resamples: Bootstrap draws.
        seed: Of the draws.

    Raises:
        ValueError: Fewer than five good or defective parts, or a score that is not finite.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a score is not finite; the detector must not be used")
    names = np.unique(np.asarray(part, dtype=np.str_), return_inverse=True)[1]
    sides = []
    for wanted in (False, True):
        rows = np.flatnonzero(defective == wanted)
        groups = [rows[names[rows] == one] for one in np.unique(names[rows])]
        if len(groups) < LEAST_PARTS:
            raise ValueError(
                f"{len(groups)} {'defective' if wanted else 'good'} parts to compare on; "
                f"label at least {LEAST_PARTS}"
            )
        sides.append(groups)
    wins = [_wins(scores, defective) for scores in (first, second)]
    rng = np.random.default_rng(seed)
    differences = np.empty(resamples)
    good, bad = (np.flatnonzero(~defective), np.flatnonzero(defective))
    for k in range(resamples):
        weights = np.zeros(len(defective))
        for groups in sides:
            for chosen in rng.integers(len(groups), size=len(groups)):
                weights[groups[chosen]] += 1
        both = [_area(won, weights[bad], weights[good]) for won in wins]
        differences[k] = both[0] - both[1]
    low, high = np.quantile(differences, [0.025, 0.975])
    a, b = (float(won.mean()) for won in wins)
    return PairedResult(a, b, a - b, float(low), float(high), len(sides[0]), len(sides[1]))


def _wins(scores: NDArray[np.float64], defective: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return float [defective, good]: 1 where the defective one scores higher, .5 where equal."""
    bad, good = scores[defective][:, None], scores[~defective][None, :]
    won: NDArray[np.float64] = (bad > good) + 0.5 * (bad == good)
    return won


def _area(won: NDArray[np.float64], bad: NDArray[np.float64], good: NDArray[np.float64]) -> float:
    return float(bad @ won @ good / (bad.sum() * good.sum()))
