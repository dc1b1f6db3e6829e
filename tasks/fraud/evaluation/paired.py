"""Paired bootstrap: is one model better than another on the same rows?

Whole entities are drawn with replacement (a cluster bootstrap, Field and Welsh, 2007), because the
transactions of one card are not independent. Both models see the same draws, so what they share
cancels out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.evaluation.bootstrap import JudgedScores, RankedScores, paired_interval
from tasks.fraud.evaluation.metrics import average_precision


@dataclass(frozen=True, slots=True)
class PairedRules:
    """How a paired comparison is made.

    Attributes:
        resamples: Bootstrap draws.
        level: Coverage of the interval.
        seed: Seed of the draws.
    """

    resamples: int = 500
    level: float = 0.95
    seed: int = 2018

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.resamples < 20:
            raise ValueError(f"resamples must be at least 20, got {self.resamples}")
        if not 0.5 < self.level < 1:
            raise ValueError(f"level must lie between 0.5 and 1, got {self.level}")


@dataclass(frozen=True, slots=True)
class PairedResult:
    """Average precision of two models on the same rows and the interval of their difference.

    Attributes:
        first: AP of the first model.
        second: AP of the second model.
        difference: ``first - second``.
        low: Lower end of the interval of the difference.
        high: Upper end.
        rows: Rows compared.
        frauds: Frauds among them.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    rows: int
    frauds: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare_paired(
    label: NDArray[np.int8],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    cluster: NDArray[np.integer[Any]],
    rules: PairedRules | None = None,
) -> PairedResult:
    """Compare two models by average precision.

    Args:
        label: [n] 1 fraud, 0 legitimate.
        first: [n] scores of the model that wants to win.
        second: [n] scores of its rival.
        cluster: [n] entity of each row, drawn as a whole.
        rules: Draws and level.

    Raises:
        ValueError: When lengths differ, a score is not finite, or one class is absent.
    """
    rules = rules or PairedRules()
    if not len(label) == len(first) == len(second) == len(cluster):
        raise ValueError(
            f"paired comparison: {len(label)} labels, {len(first)} and {len(second)} scores, "
            f"{len(cluster)} entities; all must be equal"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("paired comparison: a score is NaN or infinite")
    frauds = int((label == 1).sum())
    if not 0 < frauds < len(label):
        raise ValueError(
            f"paired comparison: {frauds} frauds in {len(label)} rows; both classes are needed"
        )
    judged = JudgedScores(label, cluster, first, second)
    found = paired_interval(
        "ap", [judged], resamples=rules.resamples, level=rules.level, seed=rules.seed
    )
    return PairedResult(
        first=average_precision(label, first),
        second=average_precision(label, second),
        difference=found.difference,
        low=found.low,
        high=found.high,
        rows=len(label),
        frauds=frauds,
    )


def interval_of_ap(
    label: NDArray[np.int8],
    score: NDArray[np.float64],
    cluster: NDArray[np.integer[Any]],
    rules: PairedRules | None = None,
) -> tuple[float, float]:
    """Return the bootstrap interval of one model's average precision (entities drawn whole)."""
    rules = rules or PairedRules()
    ids, codes = np.unique(cluster, return_inverse=True)
    ranked = RankedScores(label, score, codes)
    rng = np.random.default_rng(rules.seed)
    values = np.empty(rules.resamples)
    for draw in range(rules.resamples):
        picked = rng.integers(0, len(ids), size=len(ids))
        weight = np.bincount(picked, minlength=len(ids)).astype(np.float64)
        values[draw] = ranked.value("ap", weight)
    tail = (1 - rules.level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
