"""Inputs for linear and neural heads: signed logarithm, standardisation, optional hinges.

Trees split at any threshold; a linear model needs inputs of one scale. ``sign(v) ln(1 + |v|)``
tames amounts and durations, standardisation centres them, and hinges ``max(z - knot, 0)`` at the
training quantiles let a linear model bend (a piecewise-linear additive model). All of it is
public preprocessing: in encrypted scoring it happens before encryption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.fraud.heads.onnx_graph import GraphBuilder

Float = NDArray[np.float64]

LIMIT = 8.0
"""Standardised values are clipped here: one absurd value must not decide alone."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fitted encoding of F features as G inputs.

    Attributes:
        mean: float64 [F] of the signed logarithms.
        scale: float64 [F] standard deviations (1 where constant).
        knots: float64 [F, K] in standardised units; K may be 0.
    """

    mean: Float
    scale: Float
    knots: Float

    @property
    def width(self) -> int:
        """Number of features F."""
        return len(self.mean)

    @property
    def outputs(self) -> int:
        """Number of inputs G of the model behind: ``F * (1 + K)``."""
        return self.width * (1 + int(self.knots.shape[1]))

    def encode(self, x: NDArray[np.float32]) -> Float:
        """Return float64 [n, G]: standardised features, then the hinges feature by feature."""
        z = (_signed_log(x) - self.mean) / self.scale
        z = np.clip(z, -LIMIT, LIMIT)
        if self.knots.shape[1] == 0:
            return z
        hinges = np.maximum(z[:, :, None] - self.knots, 0.0)
        return np.concatenate([z, hinges.reshape(len(z), z.shape[1] * self.knots.shape[1])], axis=1)

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """Add the encoding to an ONNX graph; return the name of its float64 [None, G].

        The float32 logarithms of large numbers that differ little (dates, instants) would all but
        tie, so the graph counts in float64 as ``encode`` does; scorers stay there up to their
        log-odds.
        """
        exact = graph.cast(features, np.float64)
        above_zero = graph.node("Add", [graph.node("Abs", [exact]), _float64(graph, [1.0])])
        value = graph.node("Mul", [graph.node("Sign", [exact]), graph.node("Log", [above_zero])])
        centred = graph.node("Sub", [value, _float64(graph, self.mean)])
        z = graph.node("Div", [centred, _float64(graph, self.scale)])
        z = graph.node("Clip", [z, _float64(graph, -LIMIT), _float64(graph, LIMIT)])
        count = self.knots.shape[1]
        if count == 0:
            return z
        cube = graph.node("Reshape", [z, graph.constant([0, self.width, 1], dtype=np.int64)])
        above = graph.node("Relu", [graph.node("Sub", [cube, _float64(graph, self.knots)])])
        flat = graph.node(
            "Reshape", [above, graph.constant([0, self.width * count], dtype=np.int64)]
        )
        return graph.node("Concat", [z, flat], axis=1)


def fit_scaling(x: NDArray[np.float32], *, knots: int = 0) -> Scaling:
    """Fit the encoding.

    Args:
        x: float32 [n, F] training rows.
        knots: Hinges per feature, at equally spaced training quantiles.
    """
    values = _signed_log(x)
    mean = values.mean(axis=0)
    scale = values.std(axis=0)
    scale[scale < 1e-9] = 1.0
    z = np.clip((values - mean) / scale, -LIMIT, LIMIT)
    shares = np.arange(1, knots + 1) / (knots + 1)
    places = np.quantile(z, shares, axis=0).T if knots else np.zeros((x.shape[1], 0))
    return Scaling(mean, scale, np.ascontiguousarray(places))


def _float64(graph: GraphBuilder, value: ArrayLike) -> str:
    return graph.constant(value, dtype=np.float64)


def _signed_log(x: NDArray[np.float32]) -> Float:
    values = x.astype(np.float64)
    logarithm: Float = np.sign(values) * np.log1p(np.abs(values))
    return logarithm
