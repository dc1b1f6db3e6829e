"""A head: something that gives log-odds, and the calibration that makes them probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.calibration import Calibration, fit_calibration
from tasks.fraud.heads.onnx_graph import INPUT, GraphBuilder

IDENTITY = Calibration()


class HeadError(ValueError):
    """Data that a head cannot learn from or score; the message names the fix."""


class Scorer(Protocol):
    """What a head needs of a model."""

    @property
    def width(self) -> int:
        """Number of features F."""

    def logit(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds [n] of rows [n, F]."""

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add the model to an ONNX graph; return the name of its log-odds [None, 1]."""


@dataclass(frozen=True, slots=True)
class Head:
    """A calibrated scorer.

    Attributes:
        scorer: The fitted model.
        calibration: Map of its log-odds; the identity until ``calibrated`` is called.
    """

    scorer: Scorer
    calibration: Calibration = IDENTITY

    @property
    def width(self) -> int:
        """Number of features F."""
        return self.scorer.width

    def logit(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return uncalibrated log-odds [n]."""
        return self.scorer.logit(check_features(x, self.width))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return calibrated fraud probabilities [n].

        Args:
            x: float32 [n, F]; finite.

        Raises:
            HeadError: On another width or values that are not finite.
        """
        return self.calibration.probability(self.logit(x))

    def calibrated(
        self, x: NDArray[np.float32], y: ArrayLike, *, method: Literal["beta", "platt"] = "beta"
    ) -> Head:
        """Return the head with a calibration fitted on held-out rows after its training window."""
        labels = check_labels(y, len(x))
        raised = self.calibration.raised(self.logit(x))
        fitted = fit_calibration(raised, labels, method=method)
        return replace(self, calibration=replace(fitted, floor=self.calibration.floor))

    def to_onnx(self) -> bytes:
        """Return the head as one ONNX graph: ``features`` [None, F] -> ``probability`` [None]."""
        graph = GraphBuilder(self.width)
        value = self.scorer.add_to(graph, INPUT)
        return graph.finish(graph.node("Sigmoid", [_calibrate(graph, value, self.calibration)]))


@dataclass(frozen=True, slots=True)
class Blend:
    """Weighted sum of the log-odds of several scorers of the same features.

    Attributes:
        parts: Scorers.
        weights: One weight per scorer.
    """

    parts: tuple[Scorer, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if not self.parts or len(self.parts) != len(self.weights):
            raise HeadError("a blend needs at least one scorer and one weight for each")
        if len({p.width for p in self.parts}) != 1:
            raise HeadError("the scorers of a blend must read the same features")

    @property
    def width(self) -> int:
        """Number of features F."""
        return self.parts[0].width

    def logit(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the weighted log-odds [n]."""
        total = np.zeros(len(x))
        for part, weight in zip(self.parts, self.weights, strict=True):
            total += weight * part.logit(x)
        return total

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add every part and their weighted sum."""
        terms = [
            graph.node("Mul", [part.add_to(graph, features), graph.constant([weight])])
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return terms[0] if len(terms) == 1 else graph.node("Sum", terms)


def _calibrate(graph: GraphBuilder, value: str, calibration: Calibration) -> str:
    if calibration.floor is not None:
        value = graph.node("Max", [value, graph.constant([calibration.floor])])
    if calibration.a == calibration.b:  # Platt: the two softplus terms add up to the log-odds
        return graph.affine(value, [calibration.a], [calibration.c])
    likely = graph.softplus(graph.node("Neg", [value]))
    unlikely = graph.softplus(value)
    high = graph.node("Mul", [likely, graph.constant([-calibration.a])])
    low = graph.affine(unlikely, [calibration.b], [calibration.c])
    return graph.node("Add", [high, low])


def check_features(x: NDArray[Any], width: int | None = None) -> NDArray[np.float32]:
    """Return rows as contiguous float32 [n, F].

    Raises:
        HeadError: On a wrong shape or values that are not finite.
    """
    if x.ndim != 2 or (width is not None and x.shape[1] != width):
        raise HeadError(f"features have shape {x.shape}, the head reads [n, {width or 'F'}]")
    values = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(values).all():
        column = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
        raise HeadError(
            f"feature {column} holds NaN or infinity; build features with build_features, which "
            "gives missing values a declared default"
        )
    return values


def check_labels(y: ArrayLike, rows: int) -> NDArray[np.int8]:
    """Return labels as int8 0/1 [n].

    Raises:
        HeadError: On unknown labels, another length, or one class only.
    """
    labels = np.asarray(y)
    if labels.shape != (rows,):
        raise HeadError(f"{labels.shape} labels for {rows} rows")
    if not np.isin(labels, (0, 1)).all():
        raise HeadError("labels must be 0 or 1; leave unlabelled rows (-1) out of training")
    frauds = int(np.sum(labels == 1))
    if frauds in (0, rows):
        raise HeadError(
            f"all {rows} training labels are {int(frauds > 0)}; a model needs frauds and "
            "legitimate rows: train on more days or check the label column"
        )
    return labels.astype(np.int8)
