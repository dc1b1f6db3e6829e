"""Logistic regression on encoded features: the baseline, and the head that scores encrypted.

The model is one dot product over the encoding of ``tasks.fraud.heads.scaling``, so a service that
sees only ciphertexts can compute its log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.head import Head, HeadError, check_features, check_labels
from tasks.fraud.heads.onnx_graph import GraphBuilder
from tasks.fraud.heads.scaling import Scaling, fit_scaling

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogisticConfig:
    """Settings of the logistic head.

    Attributes:
        knots: Hinges per feature; 0 is a plain linear model of the scaled features.
        l2: Penalty on the squared weights, relative to the summed loss of the rows.
        iterations: Most Newton steps.
        tolerance: Newton stops when the loss falls by less (per row).
    """

    knots: int = 0
    l2: float = 10.0
    iterations: int = 50
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.knots < 0 or self.iterations < 1:
            raise HeadError("logistic.knots must be >= 0 and logistic.iterations >= 1")
        if not self.l2 > 0:
            raise HeadError(f"logistic.l2 must be positive, got {self.l2}")


@dataclass(frozen=True, slots=True)
class LogisticScorer:
    """A fitted linear model.

    Attributes:
        scaling: Encoding of the features.
        weights: float64 [G].
        bias: Intercept.
    """

    scaling: Scaling
    weights: Float
    bias: float

    @property
    def width(self) -> int:
        """Number of features F."""
        return self.scaling.width

    def encode(self, x: NDArray[np.float32]) -> Float:
        """Return the inputs [n, G] of the dot product."""
        return self.scaling.encode(x)

    def logit(self, x: NDArray[np.float32]) -> Float:
        """Return log-odds [n]."""
        score: Float = self.encode(x) @ self.weights + self.bias
        return score

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add encoding and dot product, in float64 up to the log-odds."""
        encoded = self.scaling.add_to(graph, features)
        weights = graph.constant(self.weights[:, None], dtype=np.float64)
        bias = graph.constant([self.bias], dtype=np.float64)
        score = graph.node("Add", [graph.node("MatMul", [encoded, weights]), bias])
        return graph.cast(score, np.float32)


def fit_logistic(
    x: NDArray[np.float32], y: ArrayLike, config: LogisticConfig | None = None
) -> Head:
    """Fit by damped Newton steps; the head is uncalibrated until ``Head.calibrated``.

    Args:
        x: float32 [n, F].
        y: [n] 1 fraud, 0 legitimate.
        config: Settings.

    Raises:
        HeadError: On labels of one class, unknown labels, or features that are not finite.
    """
    settings = config or LogisticConfig()
    values = check_features(x)
    labels = check_labels(y, len(values)).astype(np.float64)
    scaling = fit_scaling(values, knots=settings.knots)
    inputs = np.empty((len(values), scaling.outputs + 1))
    inputs[:, :-1] = scaling.encode(values)
    inputs[:, -1] = 1.0
    weights = _newton(inputs, labels, settings)
    return Head(LogisticScorer(scaling, weights[:-1], float(weights[-1])))


def _newton(inputs: Float, labels: Float, config: LogisticConfig) -> Float:
    """Minimise mean log-loss plus l2 (the intercept is free) by Newton steps with halving."""
    rows, width = inputs.shape
    penalty = np.full(width, config.l2 / rows)
    penalty[-1] = 1e-12
    weights = np.zeros(width)
    weights[-1] = np.log(labels.mean() / (1.0 - labels.mean()))
    eta = inputs @ weights

    def loss(eta: Float, weights: Float) -> float:
        data = np.mean(np.logaddexp(0.0, eta) - labels * eta)
        return float(data + 0.5 * np.sum(penalty * weights**2))

    current = loss(eta, weights)
    for _ in range(config.iterations):
        probability = 0.5 * (1.0 + np.tanh(0.5 * eta))
        gradient = inputs.T @ (probability - labels) / rows + penalty * weights
        curvature = probability * (1.0 - probability) / rows
        hessian = (inputs * curvature[:, None]).T @ inputs + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        direction = inputs @ step
        size = 1.0
        while size > 1e-4:
            trial = loss(eta - size * direction, weights - size * step)
            if trial < current:
                break
            size *= 0.5
        else:
            break
        weights, eta = weights - size * step, eta - size * direction
        gained, current = current - trial, trial
        if gained < config.tolerance:
            break
    return weights
