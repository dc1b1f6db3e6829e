"""What can be scored encrypted: one linear layer, or two with a square or cube between them.

A linear model is ``weights @ x + offset`` over encoded rows x; one with a power is
``output @ (weights @ x + bias) ** power + offset``. Deeper networks, trees and other activations
are distilled into one of these (`tasks.privacy.distil`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.encoding import Encoding
from tasks.privacy.readout import Kind, Readout

Reals = NDArray[np.float64]


class ModelError(ValueError):
    """A model cannot be scored encrypted; says what could be."""


@dataclass(frozen=True)
class PrivateModel:
    """A model over encoded rows.

    Attributes:
        encoding: From raw columns to inputs.
        weights: float64 [H, G]; of a linear model H is the number of scores.
        offset: float64 [O], added at the end, by the owner.
        power: 1, 2 or 3.
        bias: float64 [H] before the power; empty in a linear model.
        output: float64 [O, H] behind the power; empty in a linear model.
        readout: What the owner makes of the scores.
    """

    encoding: Encoding
    weights: Reals
    offset: Reals
    power: Literal[1, 2, 3] = 1
    bias: Reals = field(default_factory=lambda: np.zeros(0))
    output: Reals = field(default_factory=lambda: np.zeros((0, 0)))
    readout: Readout = field(default_factory=Readout)

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ModelError: When they do not fit or a number is not finite.
        """
        if self.power not in {1, 2, 3}:
            raise ModelError("activations that can be scored encrypted are the square and the cube")
        hidden = 0 if self.power == 1 else len(self.weights)
        scores = len(self.offset)
        shapes = {
            "weights": (len(self.weights), self.encoding.inputs),
            "offset": (len(self.weights) if self.power == 1 else scores,),
            "bias": (hidden,),
            "output": (scores if hidden else 0, hidden),
        }
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, value)
            if value.shape != shape:
                raise ModelError(f"{name} has shape {list(value.shape)}, not {list(shape)}")
            if not np.isfinite(value).all():
                raise ModelError(f"{name} of the model holds numbers that are not finite")
        if self.readout.kind == "probability" and scores != 1:
            raise ModelError(f"{scores} scores per row are no log-odds; say readout.kind 'class'")

    @property
    def scores(self) -> int:
        """Number of scores per row, O."""
        return len(self.offset)

    def score(self, rows: ArrayLike) -> Reals:
        """Return the scores [n, O] of raw rows, in the clear."""
        return self.score_encoded(self.encoding.encode(rows))

    def score_encoded(self, inputs: Reals) -> Reals:
        """Return the scores [n, O] of encoded rows, in the clear."""
        hidden: Reals = inputs @ self.weights.T
        if self.power > 1:
            hidden = (hidden + self.bias) ** self.power @ self.output.T
        return hidden + self.offset


def linear_model(
    encoding: Encoding, weights: ArrayLike, offset: ArrayLike, readout: Readout | None = None
) -> PrivateModel:
    """Return a linear model.

    Args:
        encoding: Of its rows.
        weights: [G] or [O, G].
        offset: A number or [O].
        readout: What its scores mean; default log-odds of one event, or evidence for classes.
    """
    matrix = np.atleast_2d(np.asarray(weights, np.float64))
    return PrivateModel(
        encoding,
        matrix,
        np.atleast_1d(np.asarray(offset, np.float64)),
        readout=readout or Readout(_kind(len(matrix))),
    )


def power_model(
    encoding: Encoding,
    layers: Sequence[tuple[ArrayLike, ArrayLike]],
    power: Literal[2, 3],
    readout: Readout | None = None,
) -> PrivateModel:
    """Return a network of two linear layers with a power between them.

    Args:
        encoding: Of its rows.
        layers: Weights [H, G] and bias [H], then weights [O, H] and bias [O].
        power: 2 or 3.
        readout: What its scores mean; default log-odds of one event, or evidence for classes.

    Raises:
        ModelError: When there are more or fewer layers.
    """
    if len(layers) != 2:
        raise ModelError(
            f"{len(layers)} layers: two can be scored encrypted; distil deeper networks into two"
        )
    (weights, bias), (output, offset) = layers
    matrix = np.atleast_2d(np.asarray(output, np.float64))
    return PrivateModel(
        encoding,
        np.asarray(weights, np.float64),
        np.atleast_1d(np.asarray(offset, np.float64)),
        power,
        np.asarray(bias, np.float64),
        matrix,
        readout or Readout(_kind(len(matrix))),
    )


def _kind(scores: int) -> Kind:
    return "probability" if scores == 1 else "class"


def convolution_weights(
    kernels: ArrayLike, size: int, stride: int = 1, bias: ArrayLike | None = None
) -> tuple[Reals, Reals]:
    """Return a convolution of square images as a matrix: a first layer for `power_model`.

    Args:
        kernels: [C, k, k], one channel in, C out, no padding.
        size: Side of the images, whose pixels are the inputs row by row.
        stride: Pixels from one place to the next.
        bias: [C]; None: zeros.

    Returns:
        Weights float64 [C * n * n, size * size] with ``n = (size - k) // stride + 1``, nearly all
        of them zeros, which cost nothing; and bias float64 [C * n * n].

    Raises:
        ModelError: When a kernel does not fit.
    """
    filters = np.asarray(kernels, np.float64)
    side = filters.shape[-1]
    if filters.ndim != 3 or filters.shape[1] != side or not 1 <= side <= size or stride < 1:
        raise ModelError(
            f"kernels are [channels, k, k] with k up to {size}, not {list(filters.shape)}, and the"
            " stride is at least 1"
        )
    places = range(0, size - side + 1, stride)
    weights = np.zeros((len(filters), len(places), len(places), size, size))
    for i, top in enumerate(places):
        for j, left in enumerate(places):
            weights[:, i, j, top : top + side, left : left + side] = filters
    each = np.zeros(len(filters)) if bias is None else np.asarray(bias, np.float64)
    return weights.reshape(-1, size * size), np.repeat(each, len(places) ** 2)
