"""Formulas of doubt in given labels from out-of-sample probabilities: higher is more doubtful.

The published scores of confident learning (Northcutt et al., 2021; their label quality is
1 - doubt) and two of our own: a margin over probabilities whose temperature is fitted to the given
labels, and the given label's probability after a calibration by class. ``noise.py`` has the third,
``ranking.py`` names them all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

FLOOR = 1e-6  # of published formulas, and of logarithms
SUM_TOLERANCE = 1e-3  # probabilities are often kept as float16 or float32
FOLDS = 5


def checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Labels, Floats]:
    """Return labels [N] and probabilities [N, K] whose rows sum to 1.

    Raises:
        ValueError: Shapes do not fit, a label lies outside 0..K-1, or rows are no probabilities.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probabilities must be [rows, classes >= 2], not {p.shape}")
    if y.shape != (len(p),):
        raise ValueError(f"{len(p)} rows of probabilities need as many labels, not {y.shape}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"labels must be class numbers, not {y.dtype}; encode them first")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < p.shape[1]:
        raise ValueError(f"labels {y.min()}..{y.max()} do not fit {p.shape[1]} classes")
    sums = p.sum(axis=1)
    bad = ~np.isfinite(sums) | (np.abs(sums - 1) > SUM_TOLERANCE) | (p < 0).any(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{bad.sum()} rows are no probabilities, first row {first}: {p[first].tolist()}; "
            "pass what predict_proba or softmax returns"
        )
    return y.astype(np.int64), p / sums[:, None]


def given(y: Labels, p: Floats) -> Floats:
    """Return the probability of every given label [N]."""
    chosen: Floats = p[np.arange(len(y)), y]
    return chosen


def suggested(y: Labels, p: Floats) -> Labels:
    """Return the likeliest class other than the given one [N]."""
    others = p.copy()
    others[np.arange(len(y)), y] = -1.0
    best: Labels = others.argmax(axis=1)
    return best


def self_confidence(y: Labels, p: Floats) -> Floats:
    """Return 1 - probability of the given label."""
    return 1 - given(y, p)


def normalized_margin(y: Labels, p: Floats) -> Floats:
    """Return how far the likeliest other class leads the given one, scaled to 0..1."""
    return (1 - given(y, p) + given(suggested(y, p), p)) / 2


def confidence_weighted_entropy(y: Labels, p: Floats) -> Floats:
    """Return 1 - log(1 + r) / r for r = normalized entropy / probability of the given label."""
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1) / np.log(p.shape[1])
    ratio = entropy / np.maximum(given(y, p), FLOOR)
    return np.asarray(1 - np.log1p(ratio) / np.maximum(ratio, FLOOR))


def adjusted(y: Labels, p: Floats) -> Floats:
    """Return probabilities less each class's mean self-confidence, shifted and rescaled [N, K]."""
    means = np.array([p[y == k, k].mean() if (y == k).any() else 0.0 for k in range(p.shape[1])])
    shifted = p - means + means.max()
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def softened(p: Floats, temperature: float) -> Floats:
    """Return softmax(log p / temperature) [N, K]; above 1 is less sure."""
    return np.asarray(np.exp(log_softened(p, temperature)))


def log_softened(p: Floats, temperature: float) -> Floats:
    """Return the logarithms of :func:`softened` [N, K]."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(np.log(np.maximum(p, FLOOR**2)) / temperature, axis=1))


def fitted_temperature(y: Labels, p: Floats) -> float:
    """Return the temperature in 1/20..20 that makes the given labels likeliest."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(-given(y, log_softened(p, float(np.exp(log_temperature)))).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def tempered_margin(y: Labels, p: Floats) -> Floats:
    """Return the normalized margin of probabilities at the fitted temperature."""
    return normalized_margin(y, softened(p, fitted_temperature(y, p)))


def class_calibrated(y: Labels, p: Floats) -> Floats:
    """Return 1 - probability of the given label after Dirichlet calibration (Kull et al., 2019).

    A multinomial logistic regression of the given labels on log p, cross-fitted over five
    stratified folds with a fixed seed, so no row is judged by its own label.

    Raises:
        ValueError: A class has fewer than two labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(y, minlength=p.shape[1])
    if counts.min() < 2:
        raise ValueError(
            f"class {int(counts.argmin())} has {counts.min()} labels, calibration by class needs "
            "two of every class; use another score or leave the class out"
        )
    logs = np.log(np.maximum(p, FLOOR))
    logs = (logs - logs.mean(axis=1, keepdims=True)) / 3  # near unit scale, one for all sets
    doubt = np.zeros(len(y))
    splits = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=0)
    for train, held in splits.split(logs, y):
        model = LogisticRegression(max_iter=1000).fit(logs[train], y[train])
        doubt[held] = self_confidence(y[held], model.predict_proba(logs[held]))
    return doubt
