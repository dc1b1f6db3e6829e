"""How far a decrypted score can be from the score in the clear, proved and not sampled.

Three things differ: inputs are rounded to steps, weights are rounded to steps, and every fresh
ciphertext carries noise of at most 21 steps per coefficient. Inputs are bounded by their encoding,
so there is a bound for every row that can be encrypted (``certain``, ``likely``), and a closer one
for any given row.

``certain`` takes the worst noise everywhere. ``likely`` takes the noise as the sum of independent
centred coins that it is (sub-Gaussian, Hoeffding 1963) and everything else at its worst; a whole
request exceeds it with probability below 2**-40.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.parameters import NOISE, NOISE_VARIANCE

Reals = NDArray[np.float64]

FAILURE_BITS = 40
_ROUNDING = 0.5
DECODING = 2.0**-44
"""Relative error of decoding in double precision (discrete Fourier transforms of up to 2**14)."""


@dataclass(frozen=True)
class LinearErrors:
    """What encryption does to the outputs of a linear layer, each float64 [H].

    Attributes:
        inputs: Error by rounded inputs, never exceeded.
        certain: Error by the noise of fresh ciphertexts, never exceeded.
        likely: The same, exceeded somewhere in a request with probability below 2**-40.
    """

    inputs: Reals
    certain: Reals
    likely: Reals


def linear_errors(weights: Reals, *, input_bits: int, rows: int, slots_of: int = 0) -> LinearErrors:
    """Bound what a linear layer makes of rounding and noise.

    Args:
        weights: float64 [H, G] as they were rounded.
        input_bits: Steps per unit of an input.
        rows: Most rows of a request.
        slots_of: Degree N where rows lie in slots, in which N coefficients add up with factors on
            the unit circle; 0 where rows are coefficients.
    """
    step = 2.0**-input_bits
    terms = max(slots_of, 1)
    absolute = np.abs(weights).sum(axis=1) * step * terms
    # Real and imaginary part of a slot have half of the variance each, and both must hold.
    parts = 2 if slots_of else 1
    deviation = np.sqrt((weights**2).sum(axis=1) * NOISE_VARIANCE * terms) * step
    certain = absolute * NOISE
    likely = np.minimum(deviation * _deviations(parts * rows * len(weights)), certain)
    return LinearErrors(absolute * _ROUNDING, certain, likely)


def weight_errors(exact: Reals, rounded: Reals, inputs: Reals) -> Reals:
    """Return the errors [n, H] by rounded weights, at absolute inputs [n, G]."""
    errors: Reals = inputs @ np.abs(rounded - exact).T
    return errors


def power_errors(hidden: Reals, errors: Reals, factors: Reals, power: int) -> Reals:
    """Return the errors of weighted sums of powers.

    Args:
        hidden: float64 [n, H], absolute hidden units.
        errors: float64 [n, H], their errors.
        factors: float64 [O, H], absolute output weights.
        power: 2 or 3.

    Returns:
        float64 [n]: the largest over the O scores.
    """
    grown: Reals = (hidden + errors) ** power - hidden**power
    sums: Reals = (grown @ factors.T).max(axis=1)
    return sums


def _deviations(events: int) -> float:
    """Return how many deviations none of so many sub-Gaussian variables exceeds."""
    return math.sqrt(2 * math.log(2 * events * 2.0**FAILURE_BITS))
