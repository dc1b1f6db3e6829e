"""Uniform ring elements from seeds, bit for bit as Microsoft SEAL expands them.

SEAL draws N words for each prime, then replaces, in order, the words beyond the largest multiple of
the prime by the words that come next, so that no remainder is more likely than another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.blake2xb import BUFFER_WORDS, SEED_WORDS, fill
from kernels.ring.modular import WORD, constants, reduced
from kernels.ring.ring import Ring

Words = NDArray[np.uint64]

_MAX = WORD(0xFFFFFFFFFFFFFFFF)


@compiled_releasing
def _next(seed: Any, state: Any, buffer: Any) -> Any:
    """Return the word after those drawn so far; state holds [next place, number of the buffer]."""
    if state[0] == BUFFER_WORDS:
        state[0] = 0
        state[1] += 1
        fill(seed, state[1], buffer)
    word = buffer[state[0]]
    state[0] += 1
    return word


@compiled_releasing
def _uniform(seed: Any, table: Any, out: Any) -> None:
    """Fill out [K, N] from one seed; table as of `modular.constants`."""
    n_primes, degree = out.shape
    drawn = -(-n_primes * degree // BUFFER_WORDS)
    words = np.empty(drawn * BUFFER_WORDS, np.uint64)
    fill(seed, np.int64(0), words)  # a literal 0 would be compiled by itself
    buffer = words[(drawn - 1) * BUFFER_WORDS :].copy()
    used = n_primes * degree - (drawn - 1) * BUFFER_WORDS
    state = np.array([used, drawn - 1])
    for k in range(n_primes):
        prime, inverse = table[k, 0], table[k, 1]
        bound = _MAX - reduced(_MAX, prime, inverse) - WORD(1)
        beyond = 0
        for i in range(degree):
            word = words[k * degree + i]
            beyond += word >= bound
            out[k, i] = reduced(word, prime, inverse)
        if beyond:
            for i in range(degree):
                word = words[k * degree + i]
                while word >= bound:
                    word = _next(seed, state, buffer)
                out[k, i] = reduced(word, prime, inverse)


@compiled_releasing
def _uniform_many(seeds: Any, table: Any, out: Any) -> None:
    for i in range(len(seeds)):
        _uniform(seeds[i], table, out[i])


def uniform(seeds: NDArray[np.uint8], ring: Ring, out: Words | None = None) -> Words:
    """Return the elements that seeds stand for.

    Args:
        seeds: uint8 [n, 64].
        ring: Of the elements.
        out: uint64 [n, K, N] with contiguous elements, written if given.

    Returns:
        uint64 [n, K, N], each word below its prime.
    """
    if seeds.ndim != 2 or seeds.shape[1] != 8 * SEED_WORDS:
        raise ValueError(f"seeds have shape [n, 64], not {list(seeds.shape)}")
    if out is None:
        out = np.empty((len(seeds), len(ring.primes), ring.degree), np.uint64)
    # Arrays that may not be written are another type, and would be compiled for once more.
    words = np.require(seeds, requirements=["C", "W"]).view("<u8")
    _uniform_many(words, constants(ring.primes), out)
    return out
