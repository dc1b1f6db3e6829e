"""Paired bootstrap: is one model better than another on the same rows?

Whole entities are drawn with replacement (a cluster bootstrap, Field and Welsh, 2007), because the
transactions of one card are not independent. Both models see the same draws, so what they share
cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        first: AP of the first model, mean over folds.
        second: AP of the second model, mean over folds.
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
    """Compare two models by average precision on one set of rows.

    Args:
        label: [n] 1 fraud, 0 legitimate.
        first: [n] scores of the model that wants to win.
        second: [n] scores of its rival.
        cluster: [n] entity of each row, drawn as a whole.
        rules: Draws and level.

    Raises:
        ValueError: When lengths differ, a score is not finite, or one class is absent.
    """
    return compare_folds([JudgedScores(label, cluster, first, second)], rules)


def compare_folds(folds: Sequence[JudgedScores], rules: PairedRules | None = None) -> PairedResult:
    """Compare two ways of training by their mean average precision over folds.

    Every fold has models of its own, whose scores need not be comparable: rows are ranked within
    their fold only.

    Args:
        folds: Both models' scores on the rows of each fold; equal units are drawn together.
        rules: Draws and level.

    Raises:
        ValueError: When lengths differ, a score is not finite, or a fold lacks a class.
    """
    rules = rules or PairedRules()
    for fold in folds:
        _check(fold)
    found = paired_interval(
        "ap", folds, resamples=rules.resamples, level=rules.level, seed=rules.seed
    )
    return PairedResult(
        first=float(np.mean([average_precision(f.label, f.first) for f in folds])),
        second=float(np.mean([average_precision(f.label, f.second) for f in folds])),
        difference=found.difference,
        low=found.low,
        high=found.high,
        rows=sum(len(f.label) for f in folds),
        frauds=sum(int((f.label == 1).sum()) for f in folds),
    )


def interval_of_ap(
    folds: Sequence[JudgedScores], rules: PairedRules | None = None
) -> tuple[float, float]:
    """Return the interval of the first model's mean average precision (entities drawn whole)."""
    rules = rules or PairedRules()
    units = np.unique(np.concatenate([np.asarray(f.unit) for f in folds]))
    ranked = [RankedScores(f.label, f.first, np.searchsorted(units, f.unit)) for f in folds]
    rng = np.random.default_rng(rules.seed)
    values = np.empty(rules.resamples)
    for draw in range(rules.resamples):
        picked = rng.integers(0, len(units), size=len(units))
        weight = np.bincount(picked, minlength=len(units)).astype(np.float64)
        values[draw] = np.mean([r.value("ap", weight) for r in ranked])
    tail = (1 - rules.level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _check(fold: JudgedScores) -> None:
    label, first, second, unit = fold.label, fold.first, fold.second, fold.unit
    if not len(label) == len(first) == len(second) == len(unit):
        raise ValueError(
            f"paired comparison: {len(label)} labels, {len(first)} and {len(second)} scores, "
            f"{len(unit)} entities; all must be equal"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("paired comparison: a score is NaN or infinite")
    frauds = int((label == 1).sum())
    if not 0 < frauds < len(label):
        raise ValueError(
            f"paired comparison: {frauds} frauds in {len(label)} rows; both classes are needed"
        )
