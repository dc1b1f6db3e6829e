"""Secrets of 32 bytes in n shares of which any t give it back, and fewer tell nothing.

Shamir 1979: the secret is the value at 0 of a random polynomial of degree t - 1 over the integers
modulo a prime, the shares are its values at 1, 2, ... n.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = (1 << 256) + 297
"""The smallest prime above all secrets."""

SECRET_BYTES = 32
SHARE_BYTES = 33


class ShareError(ValueError):
    """Shares are too few, or none of what was shared."""


def split(secret: bytes, places: Sequence[int], threshold: int) -> dict[int, bytes]:
    """Return a share for each place.

    Args:
        secret: 32 bytes.
        places: Distinct numbers of at least 1: where the polynomial is taken.
        threshold: Shares that give the secret back.

    Raises:
        ValueError: When places or threshold do not fit.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 1 <= threshold <= len(places) or len(set(places)) != len(places) or min(places) < 1:
        raise ValueError(f"{threshold} of places {list(places)}: distinct, from 1, and enough")
    tail = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *tail]
    return {place: _value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret.

    All shares are looked at: those beyond the threshold must lie on the same polynomial.

    Args:
        shares: Place -> share.
        threshold: Shares that give the secret back.

    Raises:
        ShareError: When there are too few, or they are not of one secret.
    """
    if len(shares) < threshold:
        raise ShareError(f"{len(shares)} shares do not make a secret, {threshold} do")
    points = []
    for place, share in shares.items():
        value = int.from_bytes(share, "big")
        if len(share) != SHARE_BYTES or value >= PRIME:
            raise ShareError(f"the share at place {place} is no field element")
        points.append((place, value))
    used, others = points[:threshold], points[threshold:]
    if any(_interpolated(used, place) != value for place, value in others):
        raise ShareError("the shares are not of one secret: one of them was changed")
    secret = _interpolated(used, 0)
    if secret >> (8 * SECRET_BYTES):
        raise ShareError("the shares give no secret of 32 bytes: one of them was changed")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: Sequence[int], place: int) -> int:
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * place + coefficient) % PRIME
    return total


def _interpolated(points: Sequence[tuple[int, int]], at: int) -> int:
    """Return the value at a place of the polynomial through points (Lagrange)."""
    factors = _factors(tuple(place for place, _ in points), at)
    products = (value * factor for (_, value), factor in zip(points, factors, strict=True))
    return sum(products) % PRIME


@lru_cache(maxsize=2_048)
def _factors(places: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return what values at places count at another; all secrets of a sum share them."""
    found = []
    for place in places:
        above, below = 1, 1
        for other in places:
            if other != place:
                above = above * (at - other) % PRIME
                below = below * (place - other) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(found)
