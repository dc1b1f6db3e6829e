"""Paired bootstrap intervals: is one score better than another on the same rows?

Whole units are drawn with replacement (a cluster bootstrap, Field and Welsh, 2007): entities for
AP and AUC, because the transactions of one entity are not independent; days for the entity
precision at k, whose days depend on each other through caught entities and are taken as they are.
Both scores see the same draws, so what they share cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Metric = Literal["ap", "auc"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and its bootstrap interval.

    Attributes:
        difference: First minus second on the data as they are.
        low: Lower end.
        high: Upper end.
        level: Coverage.
        better: Share of draws in which the first is better.
    """

    difference: float
    low: float
    high: float
    level: float
    better: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """Two scores on the judged rows of one fold.

    Attributes:
        label: [n] 1 fraud, 0 legitimate.
        unit: [n] integer unit (entity) of the row; equal numbers in two folds are one unit.
        first: [n] scores of the first model.
        second: [n] scores of the second model.
    """

    label: NDArray[Any]
    unit: NDArray[Any]
    first: NDArray[Any]
    second: NDArray[Any]


def paired_interval(
    metric: Metric,
    judged: Sequence[JudgedScores],
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the interval of a metric's difference, averaged over folds.

    Args:
        metric: ``ap`` or ``auc``.
        judged: One entry per fold.
        resamples: Draws.
        level: Coverage of the percentile interval.
        seed: Seed of the draws.

    Raises:
        ValueError: Without folds, or when a fold lacks a class.
    """
    _check(len(judged), resamples, level)
    units = np.unique(np.concatenate([np.asarray(j.unit) for j in judged]))
    place = [np.searchsorted(units, j.unit) for j in judged]
    ranked = [
        (RankedScores(j.label, j.first, p), RankedScores(j.label, j.second, p))
        for j, p in zip(judged, place, strict=True)
    ]

    def difference(weight: Float) -> float:
        values = [a.value(metric, weight) - b.value(metric, weight) for a, b in ranked]
        return float(np.mean(values))

    estimate = difference(np.ones(len(units)))
    if not np.isfinite(estimate):
        raise ValueError("a fold holds only one class; a paired comparison needs both")
    rng = np.random.default_rng(seed)
    share = np.full(len(units), 1.0 / len(units))
    draws = np.array(
        [
            difference(rng.multinomial(len(units), share).astype(np.float64))
            for _ in range(resamples)
        ]
    )
    return _interval(estimate, draws, level)


def paired_days(
    first: ArrayLike,
    second: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    statistic: Callable[[Float], Float] | None = None,
) -> Interval:
    """Return the interval of a mean difference of paired daily values (CP@k of each day).

    Args:
        first: [d] daily values of the first model, all folds in a row.
        second: [d] daily values of the second model, same days.
        resamples: Draws.
        level: Coverage.
        seed: Seed of the draws.
        statistic: Reduces draws [r, d] to [r]; default the mean.
    """
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    _check(len(gap), resamples, level)
    reduce = statistic or (lambda draws: draws.mean(axis=1))
    rng = np.random.default_rng(seed)
    draws = reduce(gap[rng.integers(0, len(gap), (resamples, len(gap)))])
    return _interval(float(reduce(gap[None, :])[0]), draws, level)


class RankedScores:
    """One score sorted once, so that a draw costs two cumulative sums.

    Args:
        label: [n] 1 fraud, 0 legitimate.
        score: [n] scores.
        unit: [n] number of each row's unit, 0 to units - 1.
    """

    def __init__(self, label: ArrayLike, score: ArrayLike, unit: NDArray[np.intp]) -> None:
        scores = np.asarray(score, dtype=np.float64)
        order = np.argsort(-scores, kind="stable")
        self._unit = unit[order]
        self._fraud = (np.asarray(label) > 0)[order].astype(np.float64)
        self._last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))

    def value(self, metric: Metric, weight: Float) -> float:
        """Return the metric with every row weighing ``weight[unit]``; NaN without a class."""
        weights = weight[self._unit]
        total = np.cumsum(weights)[self._last]
        hits = np.cumsum(weights * self._fraud)[self._last]
        frauds, legitimate = hits[-1], total[-1] - hits[-1]
        if frauds == 0 or legitimate == 0:
            return float("nan")
        gained = np.diff(hits, prepend=0.0)
        if metric == "ap":
            return float(np.sum(gained * hits / np.maximum(total, 1.0)) / frauds)
        false = np.diff(total - hits, prepend=0.0)
        return float(np.sum(false * (hits - 0.5 * gained)) / (frauds * legitimate))


def _interval(estimate: float, draws: Float, level: float) -> Interval:
    kept = draws[np.isfinite(draws)]
    if kept.size == 0:
        raise ValueError("no draw held both classes; compare on more days")
    low, high = np.quantile(kept, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(estimate, float(low), float(high), level, float(np.mean(kept > 0)))


def _check(size: int, resamples: int, level: float) -> None:
    if size == 0:
        raise ValueError("nothing to compare: no folds or days")
    if resamples < 20 or not 0 < level < 1:
        raise ValueError("resamples must be at least 20 and level between 0 and 1")
