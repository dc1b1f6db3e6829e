"""Values of polynomials at the roots of X^N + 1, in the order Microsoft SEAL keeps them.

SEAL's transform writes the value at psi**(2 * reversed(i) + 1) to place i, where psi is the least
primitive 2N-th root of unity and reversed() turns the log2(N) bits of i around.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import added, times_constant
from kernels.ring.ring import Ring

Words = NDArray[np.uint64]


@lru_cache(maxsize=32)
def least_root(degree: int, prime: int) -> int:
    """Return the least primitive 2N-th root of unity modulo a prime that is 1 modulo 2N."""
    order = 2 * degree
    root = next(
        candidate
        for candidate in (pow(base, (prime - 1) // order, prime) for base in range(2, prime))
        if pow(candidate, degree, prime) == prime - 1
    )
    square, power, least = root * root % prime, root, root
    for _ in range(degree - 1):
        power = power * square % prime
        least = min(least, power)
    return least


@lru_cache(maxsize=32)
def _powers(degree: int, prime: int) -> Words:
    """Return psi**reversed(k) and its ratio for Shoup's product, [N, 2]."""
    root, bits = least_root(degree, prime), degree.bit_length() - 1
    rising = [1]
    for _ in range(degree - 1):
        rising.append(rising[-1] * root % prime)
    places = [int(f"{k:0{bits}b}"[::-1], 2) for k in range(degree)]
    pairs = [(rising[place], (rising[place] << 64) // prime) for place in places]
    return np.array(pairs, np.uint64)


@compiled_releasing
def _transform(words: Any, powers: Any, prime: Any) -> None:
    """Turn coefficients into values, in place: log2(N) rounds of N / 2 butterflies."""
    half, blocks = len(words) // 2, 1
    while half:
        for block in range(blocks):
            power, ratio = powers[blocks + block, 0], powers[blocks + block, 1]
            start = 2 * block * half
            for low in range(start, start + half):
                one = words[low]
                other = times_constant(words[low + half], power, ratio, prime)
                words[low] = added(one, other, prime)
                words[low + half] = added(one, prime - other, prime)
        half, blocks = half // 2, 2 * blocks


def values(coefficients: NDArray[np.int64], ring: Ring) -> Words:
    """Return the values of a polynomial at the roots (Longa and Naehrig 2016, algorithm 1).

    Args:
        coefficients: int64 [N], of any sign, the constant first.
        ring: Of the polynomial.

    Returns:
        uint64 [K, N].
    """
    out = np.stack([np.mod(coefficients, np.int64(prime)) for prime in ring.primes])
    words: Words = out.astype(np.uint64)
    for k, prime in enumerate(ring.primes):
        _transform(words[k], _powers(ring.degree, prime), np.uint64(prime))
    return words
