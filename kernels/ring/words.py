"""Reads words of ring elements from bytes, compiled: what ``packing.unpack`` does, but faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import WORD
from kernels.ring.packing import check_shape, check_words
from kernels.ring.ring import Ring

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


@compiled_releasing
def _read(packed: Any, width: int, prime: Any, out: Any) -> int:
    """Read words of so many bytes; returns how many are not below the prime."""
    wrong = 0
    for i in range(len(out)):
        word = WORD(0)
        for b in range(width):
            word |= WORD(packed[i * width + b]) << WORD(8 * b)
        wrong += word >= prime
        out[i] = word
    return wrong


@compiled_releasing
def _read_seven(packed: Any, prime: Any, out: Any) -> int:
    """`_read` for words of seven bytes, without a loop over bytes."""
    wrong = 0
    for i in range(len(out)):
        p = i * 7
        word = (
            WORD(packed[p])
            | WORD(packed[p + 1]) << WORD(8)
            | WORD(packed[p + 2]) << WORD(16)
            | WORD(packed[p + 3]) << WORD(24)
            | WORD(packed[p + 4]) << WORD(32)
            | WORD(packed[p + 5]) << WORD(40)
            | WORD(packed[p + 6]) << WORD(48)
        )
        wrong += word >= prime
        out[i] = word
    return wrong


def unpack(packed: Bytes, ring: Ring, out: Words | None = None) -> Words:
    """Read polynomials.

    Args:
        packed: uint8 [n, ring.poly_bytes].
        ring: Of the polynomials.
        out: uint64 [n, K, N] with contiguous elements, written if given.

    Returns:
        uint64 [n, K, N].

    Raises:
        WordError: When a word is not below its prime, or the shape does not fit.
    """
    check_shape(packed, ring)
    if out is None:
        out = np.empty((len(packed), len(ring.primes), ring.degree), np.uint64)
    for row, target in zip(packed, out, strict=True):
        start = 0
        for k, (prime, width) in enumerate(zip(ring.primes, ring.word_bytes, strict=True)):
            part = row[start : start + width * ring.degree]
            start += width * ring.degree
            wrong = (
                _read_seven(part, WORD(prime), target[k])
                if width == 7
                else _read(part, width, WORD(prime), target[k])
            )
            check_words(wrong, k)
    return out
