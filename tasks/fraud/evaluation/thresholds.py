"""Scores at which to alert: by capacity, by false-positive rate, by cost.

Thresholds are fitted on predictions that lie after the training window. A row is an
alert when its score is at or above the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a decision costs, in major units of the currency.

    Attributes:
        review: Cost of looking at one alert.
        friction: Cost of stopping one legitimate transaction, beside the review.
        recovered: Share of a fraud's amount that an alert saves.
    """

    review: float = 5.0
    friction: float = 2.0
    recovered: float = 1.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.review < 0 or self.friction < 0:
            raise ValueError("costs.review and costs.friction must not be negative")
        if not 0 < self.recovered <= 1:
            raise ValueError(f"costs.recovered must lie in (0, 1], got {self.recovered}")


@dataclass(frozen=True, slots=True)
class ThresholdConfig:
    """Which thresholds a model carries.

    Attributes:
        alerts_per_day: Numbers of entities that can be looked at per day.
        false_positive_rates: Shares of legitimate rows that may be alerted.
        cost: Costs behind the cost threshold.
    """

    alerts_per_day: tuple[int, ...] = (50, 100, 200)
    false_positive_rates: tuple[float, ...] = (0.001, 0.005, 0.01)
    cost: CostModel = CostModel()

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if any(k < 1 for k in self.alerts_per_day):
            raise ValueError("alerts_per_day must be at least 1")
        if any(not 0 < rate < 1 for rate in self.false_positive_rates):
            raise ValueError("false_positive_rates must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fitted thresholds.

    Attributes:
        alerts_per_day: Entities per day -> score.
        fpr: False-positive rate -> score.
        cost: Score of least total cost.
    """

    alerts_per_day: dict[int, float]
    fpr: dict[float, float]
    cost: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON (numbers of alerts and rates as text keys)."""
        return {
            "alerts_per_day": {str(k): v for k, v in self.alerts_per_day.items()},
            "fpr": {f"{rate:g}": v for rate, v in self.fpr.items()},
            "cost": self.cost,
        }


def fit_thresholds(
    score: ArrayLike,
    label: ArrayLike,
    amount: ArrayLike,
    day: ArrayLike,
    entity: ArrayLike,
    config: ThresholdConfig | None = None,
) -> Thresholds:
    """Fit every threshold of the config: capacity on all rows, the others on labelled ones.

    Args:
        score: [n] calibrated probabilities.
        label: [n] 1 fraud, 0 legitimate, -1 unknown.
        amount: [n] amounts in major units.
        day: [n] integer day.
        entity: [n] integer entity that one alert would stop.
        config: Which thresholds.
    """
    rules = config or ThresholdConfig()
    known = np.asarray(label) >= 0
    scores, labels, amounts = (np.asarray(v)[known] for v in (score, label, amount))
    return Thresholds(
        {k: capacity_threshold(score, day, entity, k) for k in rules.alerts_per_day},
        {r: fpr_threshold(scores, labels, r) for r in rules.false_positive_rates},
        cost_threshold(scores, labels, amounts, rules.cost),
    )


def capacity_threshold(score: ArrayLike, day: ArrayLike, entity: ArrayLike, per_day: int) -> float:
    """Return the lowest threshold that alerts on at most ``per_day`` entities on an average day.

    An entity counts once a day, by its highest score.
    """
    scores, days = _scores(score), np.asarray(day)
    pairs = np.stack([days, np.asarray(entity)], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    best = np.full(len(unique), -np.inf)
    np.maximum.at(best, inverse.reshape(-1), scores)
    best = np.sort(best)[::-1]
    allowed = per_day * len(np.unique(days))
    if allowed >= len(best):
        return float(best[-1])
    return _just_above(best[allowed])


def fpr_threshold(score: ArrayLike, label: ArrayLike, rate: float) -> float:
    """Return the threshold that alerts on the share ``rate`` of legitimate rows at most.

    The quantile interpolates linearly, so recall at it equals the protocol's recall at FPR.
    """
    scores = _scores(score)
    legitimate = scores[np.asarray(label) == 0]
    if legitimate.size == 0:
        raise ValueError("no legitimate rows to set a false-positive rate on")
    return _just_above(float(np.quantile(legitimate, 1.0 - rate)))


def cost_threshold(
    score: ArrayLike, label: ArrayLike, amount: ArrayLike, cost: CostModel | None = None
) -> float:
    """Return the score of least total cost; infinity when alerting never pays.

    The lowest of equally cheap thresholds wins: it misses least.
    """
    scores, totals = _totals(score, label, amount, cost or CostModel())
    best = len(totals) - 1 - int(np.argmin(totals[::-1]))
    return float("inf") if best == 0 else float(scores[best - 1])


def total_cost(
    score: ArrayLike,
    label: ArrayLike,
    amount: ArrayLike,
    threshold: float,
    cost: CostModel | None = None,
) -> float:
    """Return missed amount + review of alerts + friction of false alerts, in major units."""
    rules = cost or CostModel()
    alert = _scores(score) >= threshold
    fraud = np.asarray(label) > 0
    value = np.asarray(amount, dtype=np.float64)
    saved = rules.recovered * value[alert & fraud].sum()
    lost = value[fraud].sum() - saved
    return float(lost + rules.review * alert.sum() + rules.friction * (alert & ~fraud).sum())


def _totals(
    score: ArrayLike, label: ArrayLike, amount: ArrayLike, cost: CostModel
) -> tuple[Float, Float]:
    """Distinct scores descending, and total cost of alerting on the i highest (i = 0..m)."""
    scores = _scores(score)
    order = np.argsort(-scores, kind="stable")
    fraud = (np.asarray(label) > 0)[order]
    value = np.asarray(amount, dtype=np.float64)[order]
    change = np.where(fraud, -cost.recovered * value, cost.friction) + cost.review
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    running = np.cumsum(change)[last]
    return scores[order][last], np.concatenate([[0.0], running])


def _scores(score: ArrayLike) -> Float:
    scores = np.asarray(score, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError("thresholds need a non-empty vector of finite scores")
    return scores


def _just_above(value: float) -> float:
    return float(np.nextafter(value, np.inf))
