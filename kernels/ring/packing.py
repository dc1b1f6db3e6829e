"""Words of ring elements as bytes: little-endian, as many as the prime needs; NumPy alone.

A word of a prime of 54 bits takes 7 bytes instead of 8. Reading checks each word against its prime,
so nothing behind it can meet a number that is no remainder. ``kernels.ring.words`` reads the same
bytes faster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ring.ring import Ring

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


class WordError(ValueError):
    """A word is no remainder of its prime, or there are too few or too many bytes."""


def pack(words: Words, ring: Ring) -> Bytes:
    """Write polynomials.

    Args:
        words: uint64 [n, K, N], each below its prime.
        ring: Of the polynomials.

    Returns:
        uint8 [n, ring.poly_bytes].

    Example:
        >>> pack(np.array([[[3, 12]]], np.uint64), Ring(2, (13,))).tolist()
        [[3, 12]]
    """
    as_bytes = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    as_bytes = as_bytes.reshape(len(words), len(ring.primes), ring.degree, 8)
    parts = [
        as_bytes[:, k, :, :width].reshape(len(words), -1) for k, width in enumerate(ring.word_bytes)
    ]
    return np.concatenate(parts, axis=1)


def unpack(packed: Bytes, ring: Ring) -> Words:
    """Read polynomials, the inverse of `pack`.

    Args:
        packed: uint8 [n, ring.poly_bytes].
        ring: Of the polynomials.

    Returns:
        uint64 [n, K, N].

    Raises:
        WordError: When a word is not below its prime, or the shape does not fit.
    """
    check_shape(packed, ring)
    out = np.zeros((len(packed), len(ring.primes), ring.degree, 8), np.uint8)
    start = 0
    for k, width in enumerate(ring.word_bytes):
        end = start + width * ring.degree
        out[:, k, :, :width] = packed[:, start:end].reshape(len(packed), ring.degree, width)
        start = end
    words: Words = out.view("<u8")[..., 0].astype(np.uint64, copy=False)
    for k, prime in enumerate(ring.primes):
        check_words(int((words[:, k] >= prime).sum()), k)
    return words


def check_shape(packed: Bytes, ring: Ring) -> None:
    """Check the number of bytes.

    Raises:
        WordError: When they are not those of polynomials of the ring.
    """
    if packed.ndim != 2 or packed.shape[1] != ring.poly_bytes:
        raise WordError(f"polynomials of this ring take {ring.poly_bytes} bytes each")


def check_words(wrong: int, k: int) -> None:
    """Refuse words beyond a prime.

    Raises:
        WordError: When there are any.
    """
    if wrong:
        raise WordError(
            f"{wrong} words are not below prime {k} of the ring: not written by a client of this"
            " protocol, or changed on the way"
        )
