"""Values of sparse polynomials at the roots of X^N + 1, in the order Microsoft SEAL keeps them.

SEAL's transform writes the value at psi**(2 * reversed(i) + 1) to place i, where psi is the least
primitive 2N-th root of unity and reversed() turns the log2(N) bits of i around.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

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


def values(terms: dict[int, int], ring: Ring) -> Words:
    """Return the values of a polynomial at the roots.

    Args:
        terms: Exponent below N -> whole coefficient of any sign; few, as each costs N products.
        ring: Of the polynomial.

    Returns:
        uint64 [K, N].
    """
    degree = ring.degree
    bits = degree.bit_length() - 1
    places = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(degree)]
    out = np.empty((len(ring.primes), degree), np.uint64)
    for k, prime in enumerate(ring.primes):
        root = least_root(degree, prime)
        powers = [1]
        for _ in range(2 * degree - 1):
            powers.append(powers[-1] * root % prime)
        out[k] = [
            sum(
                coefficient * powers[(2 * place + 1) * exponent % (2 * degree)]
                for exponent, coefficient in terms.items()
            )
            % prime
            for place in places
        ]
    return out
