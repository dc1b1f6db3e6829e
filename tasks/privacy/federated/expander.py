"""Random words, coins and normal numbers from a key: AES-256 in counter mode.

One key makes one stream, and serves one purpose once. The numbers that protect rows come from here
and not from NumPy's generators, whose next numbers follow from those seen.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

KEY_BYTES = 32


def words(key: bytes, count: int) -> Words:
    """Return the first words of the key's stream, uint64 [count]."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * count)), "<u8").astype(np.uint64, copy=False)


def chosen(key: bytes, count: int, rate: float) -> NDArray[np.intp]:
    """Return which of so many rows take part, each with probability ``rate`` (Poisson sampling)."""
    if rate >= 1:
        return np.arange(count)
    return np.flatnonzero(words(key, count) < np.uint64(int(rate * 2.0**64)))


def normal_steps(key: bytes, count: int, deviation: float) -> NDArray[np.int64]:
    """Return normal numbers rounded to whole steps, int64 [count].

    They come from a sign and a probability below one half, of 106 bits, by the inverse of the
    distribution: the tail is as fine as the middle and ends at 11.9 deviations. Whole steps, many
    to a deviation, leave no trace of floating point in the low bits (Mironov 2012).

    Args:
        key: 32 bytes.
        count: How many.
        deviation: In steps.
    """
    from scipy.special import ndtri

    coarse, fine = words(key, 2 * count).reshape(2, count)
    bits = np.uint64(11)
    probability = ((coarse >> bits) + ((fine >> bits) + 0.5) * 2.0**-53) * 2.0**-54
    sign = 1.0 - 2.0 * (coarse & np.uint64(1))
    steps: NDArray[np.int64] = np.rint(deviation * sign * ndtri(probability)).astype(np.int64)
    return steps
