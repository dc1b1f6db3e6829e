"""Noise that hides the noise: what must be added before a decrypted score leaves its owner.

A decrypted CKKS value contains the noise of its ciphertext, and whoever sees value and ciphertext
learns the secret key (Li and Micciancio 2021, IND-CPA-D). Added noise of

    sigma = sqrt(12 * values) * 2**(security / 2) * noise

hides it for so many released values (Li, Micciancio, Schultz and Sorrell 2022, as OpenFHE's
NOISE_FLOODING_DECRYPT applies it); a key keeps count and stops at its budget.
"""

from __future__ import annotations

import math

STATISTICAL_BITS = 30
RELEASES = 65_536
"""Values (rows times scores) that a key may release."""


def flooding_deviation(noise: float, releases: int = RELEASES) -> float:
    """Return the standard deviation of the noise to add, in the unit of ``noise``.

    Args:
        noise: Largest error of what is released.
        releases: How many values will be released in all.

    Example:
        >>> round(flooding_deviation(1.0, 1_024) / 1e6, 2)
        3.63
    """
    if releases < 1:
        raise ValueError(f"a budget of {releases} releases allows none")
    return math.sqrt(12 * releases * 2.0**STATISTICAL_BITS) * noise


def flooding_error(deviation: float, values: int) -> float:
    """Return what noise and rounding to its grid add at most, but for a chance below 2**-40.

    Args:
        deviation: Of the noise.
        values: How many are released together.
    """
    return deviation * (math.sqrt(2 * math.log(2 * values * 2.0**40)) + 0.5)
