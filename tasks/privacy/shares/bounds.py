"""How far a joint score can be from the score in the clear, and how large anything can get: proved.

Inputs and weights are rounded to steps; a hidden unit is cut to within one step of its value.
Nothing else differs, and nothing is drawn by chance, so each bound holds for every row that it
speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.model import PrivateModel

Reals = NDArray[np.float64]

DECODING = 2.0**-44
"""Relative error of double precision: of the model in the clear, and of the decoded score."""


@dataclass(frozen=True)
class Folded:
    """A model as it is computed: weighted sums or, with hidden units, a sum of signed squares.

    Attributes:
        weights: float64 [H, G].
        start: float64 [H], added to the sums.
        signs: 1 or -1 for each hidden unit, rising; empty in a linear model.
        offset: float64 [O], added behind the squares; empty in a linear model.
    """

    weights: Reals
    start: Reals
    signs: tuple[int, ...]
    offset: Reals


@dataclass(frozen=True)
class Rounding:
    """How numbers become whole: bits of inputs, of weights, and bits that hidden units keep."""

    input_bits: int
    weight_bits: int
    kept_bits: int = 0


@dataclass(frozen=True)
class Bounds:
    """Of a set of rows.

    Attributes:
        sums: Largest weighted sum, absolute, as computed.
        score: Largest score, absolute, as computed.
        error: Largest difference between the joint score and that in the clear.
    """

    sums: float
    score: float
    error: float


def fold(model: PrivateModel, threshold: float) -> Folded:
    """Return a model with output weights folded into its hidden units and a threshold subtracted.

    A unit ``v * (w x + b)**2`` is ``sign(v) * (sqrt|v| w x + sqrt|v| b)**2``. Adding units come
    last.
    """
    if model.power == 1:
        return Folded(model.weights, model.offset - threshold, (), np.zeros(0))
    output = model.output[0]
    order = np.argsort(np.sign(output), kind="stable")
    factor = np.sqrt(np.abs(output[order]))[:, None]
    signs = tuple(1 if weight >= 0 else -1 for weight in output[order])
    weights, start = model.weights[order] * factor, model.bias[order] * factor[:, 0]
    return Folded(weights, start, signs, model.offset - threshold)


def rounded(folded: Folded, rounding: Rounding) -> Reals:
    """Return the weights as they are computed with."""
    step = 2.0**-rounding.weight_bits
    weights: Reals = np.rint(folded.weights / step) * step
    return weights


def bound_any(folded: Folded, rounding: Rounding, limits: Reals) -> Bounds:
    """Bound what any row gives whose absolute inputs stay below limits, float64 [G]."""
    sums = np.abs(folded.weights) @ limits + np.abs(folded.start)
    return _bound(folded, rounding, limits[None], sums[None])


def bound_rows(folded: Folded, rounding: Rounding, inputs: Reals) -> Bounds:
    """Bound what these rows give, float64 [n, G]."""
    sums = np.abs(inputs @ folded.weights.T + folded.start)
    return _bound(folded, rounding, np.abs(inputs), sums)


def _bound(folded: Folded, rounding: Rounding, inputs: Reals, sums: Reals) -> Bounds:
    """Bound what rows give of absolute inputs [n, G] and absolute weighted sums [n, H]."""
    weights = rounded(folded, rounding)
    half_step = 2.0 ** -(rounding.input_bits + 1)
    product_step = 2.0 ** -(rounding.input_bits + rounding.weight_bits)
    errors = half_step * np.abs(weights).sum(axis=1) + inputs @ np.abs(weights - folded.weights).T
    # The start is rounded as well; doubles round in proportion to the terms that they add.
    terms = inputs @ np.abs(folded.weights).T + np.abs(folded.start)
    errors = errors + product_step + DECODING * terms
    reached = sums + errors
    if not folded.signs:
        return Bounds(float(reached.max()), float(reached.max()), float(errors.max()))
    kept = 2.0**-rounding.kept_bits
    cut_errors = errors + kept
    by_square = 2 * sums * cut_errors + cut_errors**2 + DECODING * sums**2
    offset = float(np.abs(folded.offset).max())
    error = float(by_square.sum(axis=1).max()) + kept**2 + DECODING * offset
    largest = float((sums**2).sum(axis=1).max()) + offset
    return Bounds(float(reached.max()), largest + error, error)
