"""Scores that leave their owner: with noise that hides the noise, rounded, so many per key.

See ``tasks.privacy.flooding`` for why. What does not leave needs none of it.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


class ReleaseError(ValueError):
    """Scores may not leave their owner under this offer."""


def released(scores: Reals, deviation: float) -> Reals:
    """Return scores that may leave their owner.

    Args:
        scores: float64 [n, O], decrypted.
        deviation: Of the noise to add, as the offer says.

    Returns:
        Scores with normal noise, on a grid of the largest power of two below the deviation.

    Raises:
        ReleaseError: When the offer has no noise for it.
    """
    if not deviation > 0:
        raise ReleaseError(
            "this model was compiled for its owner only: bands may leave, scores may not; ask the"
            " scorer for one that was compiled with profile 'shareable'"
        )
    grid = 2.0 ** math.floor(math.log2(deviation))
    noisy = scores + _normal(scores.shape) * deviation
    rounded: Reals = np.rint(noisy / grid) * grid
    return rounded


def _normal(shape: tuple[int, ...]) -> Reals:
    """Draw normal numbers from the system's secure source (Box and Muller 1958)."""
    count = math.prod(shape)
    drawn = np.frombuffer(secrets.token_bytes(16 * count), "<u8").reshape(2, count)
    # 53 bits each, the first never 0.
    first = ((drawn[0] >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    second = (drawn[1] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    made: Reals = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
    return made.reshape(shape)
