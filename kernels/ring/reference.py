"""The same operations in whole numbers of any size: slow, short, the truth for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.ring.ring import Ring

Words = NDArray[np.uint64]
Numbers = NDArray[Any]
"""Python's whole numbers in an array of objects."""


def _whole(words: Words) -> Numbers:
    return words.astype(object)


def _words(numbers: Numbers, ring: Ring) -> Words:
    """Return numbers [..., K, N] modulo their primes."""
    primes = np.array(ring.primes, dtype=object)[:, None]
    words: Words = (numbers % primes).astype(np.uint64)
    return words


def weighted_sums_reference(inputs: Words, weights: NDArray[np.int32], ring: Ring) -> Words:
    """Return `weighted.weighted_sums`."""
    return _words(np.tensordot(weights.astype(object), _whole(inputs), axes=(1, 0)), ring)


def power_sum_reference(inputs: Words, signs: NDArray[np.int8], power: int, ring: Ring) -> Words:
    """Return `powers.power_sum`: the coefficients of sum of sign * (a + b s)**power in s."""
    total: Numbers = np.zeros((power + 1, *inputs.shape[2:]), dtype=object)
    for (a, b), sign in zip(_whole(inputs), signs.tolist(), strict=True):
        parts = [1 + 0 * a]
        for _ in range(power):
            shifted = [0 * a, *(part * b for part in parts)]
            parts = [one * a + other for one, other in zip([*parts, 0 * a], shifted, strict=True)]
        total = total + sign * np.array(parts, dtype=object)
    return _words(total, ring)


def negacyclic_product(a: list[int], b: list[int], prime: int) -> list[int]:
    """Return the product of two polynomials modulo X^N + 1 and a prime, by its definition."""
    degree = len(a)
    out = [0] * degree
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            sign = 1 if i + j < degree else -1
            out[(i + j) % degree] += sign * one * other
    return [number % prime for number in out]
