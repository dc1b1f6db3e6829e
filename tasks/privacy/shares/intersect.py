"""Private set intersection: which customers two parties share, and in which order both list them.

Diffie-Hellman (Meadows, S&P 1986; Huberman et al., EC 1999) on Curve25519: each party hashes its
keys to the curve, multiplies them by its secret scalar and sends them in random order; each
multiplies what came by its own scalar and sends that back, hashed. Since ``a (b H(k)) = b (a
H(k))``, equal keys meet as equal tags.

Either party learns how many keys the other has and which of its own the other has too. About other
keys it learns nothing without guessing scalars (decisional Diffie-Hellman, hash as random oracle).
Semi-honest: a party that puts guessed keys into its list learns whether they are the other's.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from numpy.typing import NDArray

from kernels.curve25519.membership import on_curve
from tasks.privacy.shares.steps import Exchange, Steps

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

POINT_BYTES = 32
TAG_BYTES = 16
"""Of SHA-256 of a point multiplied twice; among 2**32, two meet by chance at 2**-65."""
_MOST_TRIES = 256


class KeyListError(ValueError):
    """A list of keys cannot be intersected."""


class PointError(ValueError):
    """The other party sent something that is no point to multiply."""


@dataclass(frozen=True)
class Intersection:
    """What a party learns.

    Attributes:
        rows: int64 [m], places of common keys in its list; the other party's ``rows`` list the same
            keys in the same order.
        alignment: SHA-256 over the common tags in order, hexadecimal: equal on both sides.
        others: How many keys the other party has.
    """

    rows: Places
    alignment: str
    others: int


def hash_to_curve(keys: Sequence[bytes]) -> Bytes:
    """Return coordinates of points of the curve, uint8 [n, 32], whose logarithms nobody knows.

    SHA-256 of key and counter, the first that lies on the curve.
    """
    found = np.empty((len(keys), POINT_BYTES), np.uint8)
    left = np.arange(len(keys))
    for attempt in range(_MOST_TRIES):
        prefix = b"penstock intersection 1" + attempt.to_bytes(2, "little")
        digests = b"".join(hashlib.sha256(prefix + keys[i]).digest() for i in left)
        tried = np.frombuffer(digests, np.uint8).reshape(-1, POINT_BYTES)
        hit = on_curve(tried)
        found[left[hit]] = tried[hit]
        left = left[~hit]
        if not len(left):
            return found
    raise KeyListError("a key has no point on the curve")  # one in 2**256


def as_bytes(keys: Sequence[str] | Sequence[bytes]) -> list[bytes]:
    """Return keys as bytes, text as UTF-8.

    Raises:
        KeyListError: When a key is listed twice: rows could not be aligned.
    """
    listed = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
    seen: dict[bytes, int] = {}
    for row, key in enumerate(listed):
        before = seen.setdefault(key, row)
        if before != row:
            raise KeyListError(
                f"rows {before} and {row} have the same key; keep one row of each customer"
            )
    return listed


class Blinder:
    """A party's secret scalar and the order in which it sends its keys; for one session."""

    def __init__(self, keys: list[bytes]) -> None:
        self._scalar = X25519PrivateKey.generate()
        self._keys = keys
        self._order = np.argsort(_random_words(len(keys)), kind="stable")

    def step(self, start: int, size: int, others: int) -> Steps[tuple[Bytes, Bytes]]:
        """Blind keys from a place on, and as many of the other party's.

        Args:
            start: First place, in the order of sending.
            size: How many at most.
            others: Keys of the other party.

        Returns:
            Tags of the own keys and of the other's, uint8 [n, 16] each, in the order of sending.

        Raises:
            PointError: When the other party sent no points.
        """
        own = [self._keys[i] for i in self._order[start : start + size]]
        theirs = max(0, min(size, others - start))
        blinded = self._times(hash_to_curve(own))
        points = yield Exchange(blinded.ravel(), theirs * POINT_BYTES)
        twice = self._times(points.reshape(-1, POINT_BYTES))
        tags = [hashlib.sha256(point.tobytes()).digest()[:TAG_BYTES] for point in twice]
        other_tags = np.frombuffer(b"".join(tags), np.uint8)
        own_tags = yield Exchange(other_tags, len(own) * TAG_BYTES)
        return own_tags.reshape(-1, TAG_BYTES), other_tags.reshape(-1, TAG_BYTES)

    def _times(self, points: Bytes) -> Bytes:
        """Return points multiplied by the scalar, uint8 [n, 32]."""
        multiply, read = self._scalar.exchange, X25519PublicKey.from_public_bytes
        try:
            made = b"".join(multiply(read(point.tobytes())) for point in points)
        except ValueError as error:
            raise PointError(
                "a point of small order came: the other party is no honest one"
            ) from error
        return np.frombuffer(made, np.uint8).reshape(-1, POINT_BYTES)

    def matched(self, own: Bytes, others: Bytes) -> Intersection:
        """Return the intersection.

        Args:
            own: uint8 [n, 16], tags of all own keys in the order of sending.
            others: uint8 [m, 16], of all of the other's.
        """
        mine = {tag.tobytes(): place for tag, place in zip(own, self._order, strict=True)}
        common = sorted(mine.keys() & {tag.tobytes() for tag in others})
        rows = np.array([mine[tag] for tag in common], np.int64)
        return Intersection(rows, hashlib.sha256(b"".join(common)).hexdigest(), len(others))


def _random_words(n: int) -> NDArray[np.uint64]:
    return np.frombuffer(secrets.token_bytes(8 * n), np.uint64)
