"""Ranking metrics of the fraud protocol: AP, ROC AUC, CP@k, recall at a false-positive rate.

Average precision and ROC AUC follow scikit-learn's definitions (ties share one threshold);
CP@k is the card precision of the Fraud Detection Handbook, for whatever entity a dataset puts
first; recall at 1 % FPR is the metric of the FDB benchmark (Grover et al., 2022).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def average_precision(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the area under the precision-recall step curve.

    Args:
        label: [n] 1 fraud, 0 legitimate.
        score: [n] higher is more suspicious.
        weight: [n] row weights (bootstrap counts); None: ones.

    Returns:
        AP in 0..1; NaN when no fraud carries weight.
    """
    hits, total, _ = _cumulative(label, score, weight)
    if hits.size == 0 or hits[-1] == 0:
        return float("nan")
    gained = np.diff(hits, prepend=0.0)
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    return float(np.sum(gained * precision) / hits[-1])


def roc_auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve (ties count half); NaN when one class is absent."""
    hits, total, _ = _cumulative(label, score, weight)
    if hits.size == 0:
        return float("nan")
    false = total - hits
    if hits[-1] == 0 or false[-1] == 0:
        return float("nan")
    area = np.sum(np.diff(false, prepend=0.0) * (hits - 0.5 * np.diff(hits, prepend=0.0)))
    return float(area / (hits[-1] * false[-1]))


def recall_at_fpr(label: ArrayLike, score: ArrayLike, fpr: float = 0.01) -> float:
    """Return the share of frauds strictly above the ``1 - fpr`` quantile of legitimate scores.

    The quantile interpolates linearly, as ``numpy.quantile`` does. NaN when a class is absent.
    """
    labels = np.asarray(label) > 0
    scores = np.asarray(score, dtype=np.float64)
    if not labels.any() or labels.all():
        return float("nan")
    threshold = np.quantile(scores[~labels], 1.0 - fpr)
    return float(np.mean(scores[labels] > threshold))


def entity_precision(
    day: ArrayLike, entity: ArrayLike, label: ArrayLike, score: ArrayLike, k: int = 100
) -> Float:
    """Return the entity precision at k of every day (CP@k when the entity is the card).

    Per day an entity carries its highest score and is a hit when any of its rows is a fraud.
    Entities hit among the k highest of a day are caught and leave the later days. Ties go to
    the lower entity number.

    Args:
        day: [n] integer day of the row.
        entity: [n] integer entity number.
        label: [n] 1 fraud, 0 legitimate.
        score: [n] scores.
        k: Entities that can be looked at per day.

    Returns:
        float64, one value per distinct day in ascending order: hits / k.
    """
    days = np.asarray(day)
    entities = np.asarray(entity)
    labels = np.asarray(label) > 0
    scores = np.asarray(score, dtype=np.float64)
    caught = np.empty(0, dtype=entities.dtype)
    precision = []
    for current in np.unique(days):
        rows = np.flatnonzero(days == current)
        rows = rows[~np.isin(entities[rows], caught)]
        ids, inverse = np.unique(entities[rows], return_inverse=True)
        best = np.full(len(ids), -np.inf)
        np.maximum.at(best, inverse, scores[rows])
        hit = np.zeros(len(ids), dtype=bool)
        np.logical_or.at(hit, inverse, labels[rows])
        top = np.argsort(-best, kind="stable")[:k]
        found = ids[top][hit[top]]
        precision.append(len(found) / k)
        caught = np.concatenate([caught, found])
    return np.asarray(precision, dtype=np.float64)


def precision_recall_curve(label: ArrayLike, score: ArrayLike) -> tuple[Float, Float, Float]:
    """Return precision, recall and threshold at every distinct score, highest score first."""
    hits, total, threshold = _cumulative(label, score, None)
    frauds = hits[-1] if hits.size else 0.0
    recall = hits / frauds if frauds else np.zeros_like(hits)
    return hits / np.maximum(total, 1.0), recall, threshold


def _cumulative(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None
) -> tuple[Float, Float, Float]:
    """Cumulative fraud weight, row weight and score at each distinct threshold, descending."""
    scores = np.asarray(score, dtype=np.float64)
    labels = np.asarray(label) > 0
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(
            f"label {labels.shape} and score {scores.shape} must be vectors of one length"
        )
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; a model must give every row a number")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    weights = (
        np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=np.float64)[order]
    )
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True)) if len(ranked) else order
    hits = np.cumsum(weights * labels[order])[last]
    total = np.cumsum(weights)[last]
    return hits, total, ranked[last]
