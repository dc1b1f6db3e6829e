"""Weighted sums of ring elements: the linear layer of encrypted scoring.

A word below 2**60 is taken as two halves of 30 bits, a weight as one number of 32. Their products
fit 64 bits and need no remainder: both halves are summed over all inputs by the vector unit's
32-bit multiplier, and one remainder is taken per output. Microsoft SEAL takes one per product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import WORD, added, constants, inlined, signed, times_constant
from kernels.ring.ring import Ring

Words = NDArray[np.uint64]
Weights = NDArray[np.int32]

_TILE = 256
"""Words of a polynomial at once: halves and sums of a tile stay in the first-level cache."""
_HALF_BITS = 30
_HALF = WORD((1 << _HALF_BITS) - 1)


@inlined
def _split(inputs: Any, k: int, start: int, low: Any, high: Any) -> None:
    """Cut one tile of every input into halves of 30 bits."""
    for j in range(len(inputs)):
        for t in range(_TILE):
            word = inputs[j, k, start + t]
            low[j, t] = np.int32(word & _HALF)
            high[j, t] = np.int32(word >> WORD(_HALF_BITS))


@inlined
def _products(halves: Any, places: Any, weights: Any, first: int, last: int, sums: Any) -> None:
    """Add weight times half for terms first to last, two at a time."""
    for n in range(first, last - 1, 2):
        i, j = places[n], places[n + 1]
        one, other = np.int64(weights[n]), np.int64(weights[n + 1])
        for t in range(_TILE):
            sums[t] += np.int64(halves[i, t]) * one + np.int64(halves[j, t]) * other
    if (last - first) % 2:
        i, one = places[last - 1], np.int64(weights[last - 1])
        for t in range(_TILE):
            sums[t] += np.int64(halves[i, t]) * one


@inlined
def _take(low: Any, high: Any, constant: Any, out: Any) -> None:
    """Add both sums of halves to out, modulo the prime, and clear them."""
    prime, inverse, half, ratio = constant[0], constant[1], constant[2], constant[3]
    for t in range(_TILE):
        word = times_constant(signed(high[t], prime, inverse), half, ratio, prime)
        out[t] = added(out[t], added(word, signed(low[t], prime, inverse), prime), prime)
        low[t] = 0
        high[t] = 0


@compiled_releasing
def _weighted(
    inputs: Any, starts: Any, places: Any, weights: Any, table: Any, run: int, out: Any
) -> None:
    n_inputs, n_primes, degree = inputs.shape
    low, high = np.empty((n_inputs, _TILE), np.int32), np.empty((n_inputs, _TILE), np.int32)
    low_sums, high_sums = np.zeros(_TILE, np.int64), np.zeros(_TILE, np.int64)
    for k in range(n_primes):
        for start in range(0, degree, _TILE):
            _split(inputs, k, start, low, high)
            for h in range(len(starts) - 1):
                target = out[h, k, start : start + _TILE]
                for first in range(starts[h], starts[h + 1], run):
                    last = min(first + run, starts[h + 1])
                    _products(low, places, weights, first, last, low_sums)
                    _products(high, places, weights, first, last, high_sums)
                    _take(low_sums, high_sums, table[k], target)


def weighted_sums(inputs: Words, weights: Weights, ring: Ring) -> Words:
    """Return sums of elements times whole numbers.

    Args:
        inputs: uint64 [F, K, N], each word below its prime.
        weights: int32 [H, F]; zeros cost nothing.
        ring: Of the elements; the degree a multiple of 256.

    Returns:
        uint64 [H, K, N]: ``weights @ inputs`` in the ring.
    """
    _check(inputs, weights, ring)
    largest = max(1, int(np.abs(weights.astype(np.int64)).max(initial=0)))
    # run * 2**30 * largest stays within 2**62.
    run = max(1, (1 << (62 - _HALF_BITS)) // largest)
    rows, places = np.nonzero(weights)
    starts = np.searchsorted(rows, np.arange(len(weights) + 1))
    terms = weights[rows, places]
    out = np.zeros((len(weights), *inputs.shape[1:]), np.uint64)
    # Of a strided array another loop would be compiled.
    places = np.ascontiguousarray(places)
    _weighted(inputs, starts, places, terms, constants(ring.primes), run, out)
    return out


def _check(inputs: Words, weights: Weights, ring: Ring) -> None:
    if inputs.shape[1:] != (len(ring.primes), ring.degree) or ring.degree % _TILE:
        raise ValueError(f"elements of shape {list(inputs.shape)} do not fit {ring}")
    if weights.dtype != np.int32 or weights.shape[1] != len(inputs):
        raise ValueError(
            f"weights are int32 [outputs, {len(inputs)}], not {weights.dtype} {list(weights.shape)}"
        )
