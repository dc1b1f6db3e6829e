"""Turns labels and scores into the thinned curves and bins a report draws. Pure NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.evaluation.metrics import precision_recall_curve
from tasks.fraud.report.rows import CalibrationBin, Curve, ScoreBin, ThresholdRow

MAX_POINTS = 240


def finite(value: float) -> float | None:
    """Return the number, or None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def pr_curve(name: str, label: ArrayLike, score: ArrayLike) -> Curve:
    """Return precision over recall, thinned to at most ``MAX_POINTS`` evenly spaced recalls.

    Args:
        name: Legend entry.
        label: ``[n]`` 1 fraud, 0 legitimate.
        score: ``[n]`` higher is more suspicious.
    """
    precision, recall, _ = precision_recall_curve(label, score)
    if len(recall) > MAX_POINTS:
        at = np.searchsorted(recall, np.linspace(recall[0], recall[-1], MAX_POINTS))
        keep = np.unique(np.minimum(at, len(recall) - 1))
        precision, recall = precision[keep], recall[keep]
    return Curve(name, _rounded(recall), _rounded(precision))


def reliability(
    label: ArrayLike, probability: ArrayLike, *, bins: int = 10, fewest: int = 20
) -> tuple[CalibrationBin, ...]:
    """Return reliability bins of equal log-odds width, neighbours joined where rows are few.

    Fraud is rare: bins of equal probability would put nearly every row into the first one.

    Args:
        label: ``[n]`` 1 fraud, 0 legitimate.
        probability: ``[n]`` calibrated probabilities.
        bins: Largest number of bins.
        fewest: Rows a bin must hold; only a single remaining bin may hold fewer.
    """
    truth, p = _clean(label, probability)
    if len(p) == 0:
        return ()
    clipped = np.clip(p, 1e-5, 1 - 1e-5)
    odds = np.log(clipped / (1 - clipped))
    edges = np.linspace(odds.min(), odds.max() + 1e-9, bins + 1)
    place = np.clip(np.searchsorted(edges, odds, side="right") - 1, 0, bins - 1)
    place = _join(place, bins, fewest)
    result = []
    for b in np.unique(place):
        inside = place == b
        n, hits = int(inside.sum()), int(truth[inside].sum())
        low, high = wilson(hits, n)
        result.append(CalibrationBin(float(p[inside].mean()), hits / n, n, low, high))
    return tuple(result)


def _join(place: NDArray[np.intp], bins: int, fewest: int) -> NDArray[np.intp]:
    """Number bins anew so that each holds ``fewest`` rows, joining from the highest down."""
    rows = np.bincount(place, minlength=bins)
    number = np.zeros(bins, dtype=np.intp)
    current, held = 0, 0
    for b in range(bins - 1, -1, -1):
        number[b] = current
        held += int(rows[b])
        if held >= fewest:
            current, held = current + 1, 0
    if held and current:  # the lowest rows are too few for a bin of their own
        number[number == current] = current - 1
    joined: NDArray[np.intp] = number.max() - number[place]
    return joined


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927).

    >>> low, high = wilson(0, 10)
    >>> low, round(high, 3)
    (0.0, 0.278)
    """
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def score_bins(label: ArrayLike, probability: ArrayLike, *, bins: int = 20) -> tuple[ScoreBin, ...]:
    """Count legitimate and fraudulent rows by score in ``bins`` steps of equal width."""
    truth, p = _clean(label, probability)
    edges = np.linspace(0.0, 1.0, bins + 1)
    genuine, _ = np.histogram(p[~truth], edges)
    frauds, _ = np.histogram(p[truth], edges)
    return tuple(
        ScoreBin(float(edges[i]), float(edges[i + 1]), int(genuine[i]), int(frauds[i]))
        for i in range(bins)
    )


def threshold_row(
    policy: str,
    threshold: float,
    label: ArrayLike,
    score: ArrayLike,
    days: float,
    *,
    cost: float | None = None,
) -> ThresholdRow:
    """Say what alerting from ``threshold`` (inclusive) on would have meant on these rows.

    Args:
        policy: Name of the policy.
        threshold: Score from which a row is an alert.
        label: ``[n]`` 1 fraud, 0 legitimate.
        score: ``[n]`` scores.
        days: Days the rows cover.
        cost: Cost a day, where the policy has one.
    """
    truth, p = _clean(label, score)
    alert = p >= threshold
    alerts, hits = int(alert.sum()), int((alert & truth).sum())
    frauds = int(truth.sum())
    genuine = len(truth) - frauds
    return ThresholdRow(
        policy=policy,
        threshold=finite(threshold),
        alerts_per_day=alerts / days if days > 0 else None,
        precision=hits / alerts if alerts else None,
        recall=hits / frauds if frauds else None,
        fpr=(alerts - hits) / genuine if genuine else None,
        cost=cost,
    )


def _clean(label: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, p = np.asarray(label), np.asarray(score, dtype=np.float64)
    if truth.shape != p.shape or truth.ndim != 1:
        raise ValueError(f"label {truth.shape} and score {p.shape} must be vectors of one length")
    known = truth >= 0
    return truth[known] > 0, p[known]


def _rounded(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.round(values, 5))
