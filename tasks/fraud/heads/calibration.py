"""Parametric calibration: scores become probabilities, fitted on later, held-out data.

Beta calibration (Kull, Silva Filho, Flach, AISTATS 2017): the calibrated log-odds are
``a ln p - b ln(1 - p) + c`` with ``a, b >= 0``, so the order of scores is kept; ``a = b`` is
Platt scaling. Both need a few numbers, no table, and export to four ONNX operators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

_SMALLEST_SLOPE = 1e-3
"""Slopes stay above it, so that calibration never flattens the order of scores."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map from log-odds to calibrated log-odds; the default changes nothing.

    Attributes:
        a: Slope where fraud is likely (weight of ``ln p``).
        b: Slope where fraud is unlikely (weight of ``-ln(1 - p)``).
        c: Intercept.
        floor: Raw log-odds below which all rows tie: there the model has no opinion, and an
            order would only be noise. None: no floor.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    floor: float | None = None

    def __post_init__(self) -> None:
        """Refuse maps that reverse or lose the order of scores."""
        if not (self.a > 0 and self.b > 0 and np.isfinite([self.a, self.b, self.c]).all()):
            raise ValueError(f"calibration slopes must be positive and finite, got {self}")

    def log_odds(self, logit: Float) -> Float:
        """Return calibrated log-odds [n]."""
        z = self.raised(logit)
        return -self.a * _softplus(-z) + self.b * _softplus(z) + self.c

    def raised(self, logit: Float) -> Float:
        """Return log-odds [n] with the floor applied."""
        return logit if self.floor is None else np.maximum(logit, self.floor)

    def probability(self, logit: Float) -> Float:
        """Return calibrated probabilities [n] in 0..1."""
        return sigmoid(self.log_odds(logit))

    def probability_of(self, logit: float) -> float:
        """Return the calibrated probability of one row, without the cost of arrays."""
        z = logit if self.floor is None else max(logit, self.floor)
        calibrated = -self.a * _softplus_of(-z) + self.b * _softplus_of(z) + self.c
        return math.exp(-_softplus_of(-calibrated))


def fit_calibration(
    logit: ArrayLike, label: ArrayLike, *, method: Literal["beta", "platt"] = "beta"
) -> Calibration:
    """Fit by maximum likelihood.

    Args:
        logit: [n] raw log-odds of held-out rows that lie after the training window.
        label: [n] 1 fraud, 0 legitimate.
        method: ``beta`` (three numbers) or ``platt`` (two).

    Raises:
        ValueError: When a class is absent or a score is not finite.
    """
    from scipy.optimize import minimize

    z = np.asarray(logit, dtype=np.float64)
    y = (np.asarray(label) > 0).astype(np.float64)
    if z.shape != y.shape or not np.isfinite(z).all():
        raise ValueError("calibration needs one finite log-odds value per label")
    if not 0 < y.sum() < len(y):
        raise ValueError("calibration needs both classes in the held-out rows; hold out more days")
    likely, unlikely = -_softplus(-z), _softplus(z)
    inputs = np.stack(
        [likely, unlikely, np.ones_like(z)] if method == "beta" else [z, np.ones_like(z)], axis=1
    )

    def loss(weights: Float) -> tuple[float, Float]:
        eta = inputs @ weights
        value = float(np.mean(_softplus(eta) - y * eta))
        return value, inputs.T @ (sigmoid(eta) - y) / len(y)

    slopes = inputs.shape[1] - 1
    found = minimize(
        loss,
        np.append(np.ones(slopes), 0.0),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_SMALLEST_SLOPE, None)] * slopes + [(None, None)],
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-9},
    )
    weights = [float(v) for v in found.x]
    return Calibration(weights[0], weights[slopes - 1], weights[-1])


def sigmoid(logit: Float) -> Float:
    """Return ``1 / (1 + exp(-logit))`` without overflow."""
    probability: Float = np.exp(-_softplus(-logit))
    return probability


def logit(probability: Float) -> Float:
    """Return log-odds; probabilities are kept 1e-12 away from 0 and 1."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    odds: Float = np.log(p) - np.log1p(-p)
    return odds


def _softplus(value: Any) -> Float:
    """``ln(1 + exp(value))``, stable at both ends."""
    return np.logaddexp(0.0, np.asarray(value, dtype=np.float64))


def _softplus_of(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
