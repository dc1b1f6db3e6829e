"""Squares and cubes of ciphertexts: the activation of encrypted scoring.

A ciphertext (c0, c1) stands for the polynomial c0 + c1*s in the secret s. Its square is
(c0*c0, 2*c0*c1, c1*c1), its cube has four parts. The owner, who knows s, decrypts either way; no
evaluation key brings the parts back to two, so there is none to make, send or check.

The words are values at the roots of X^N + 1, where products of elements are products of words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import WORD, added, constants, from_two_words, inlined, product_high
from kernels.ring.ring import Ring

Words = NDArray[np.uint64]


@inlined
def times(a: Any, b: Any, c: Any) -> Any:
    """Return a * b modulo the prime of the constants ``c``."""
    return from_two_words(product_high(a, b), a * b, c[0], c[1], c[4], c[5])


@inlined
def _signed(word: Any, sign: Any, prime: Any) -> Any:
    return word if sign > 0 or word == 0 else prime - word


@compiled_releasing
def _squares(inputs: Any, signs: Any, table: Any, out: Any) -> None:
    n_inputs, _, n_primes, degree = inputs.shape
    for k in range(n_primes):
        c = table[k]
        prime = c[0]
        for h in range(n_inputs):
            for i in range(degree):
                a, b = inputs[h, 0, k, i], inputs[h, 1, k, i]
                cross = times(a, b, c)
                out[0, k, i] = added(out[0, k, i], _signed(times(a, a, c), signs[h], prime), prime)
                cross = _signed(added(cross, cross, prime), signs[h], prime)
                out[1, k, i] = added(out[1, k, i], cross, prime)
                out[2, k, i] = added(out[2, k, i], _signed(times(b, b, c), signs[h], prime), prime)


@compiled_releasing
def _cubes(inputs: Any, signs: Any, table: Any, out: Any) -> None:
    n_inputs, _, n_primes, degree = inputs.shape
    for k in range(n_primes):
        c = table[k]
        prime = c[0]
        for h in range(n_inputs):
            for i in range(degree):
                a, b = inputs[h, 0, k, i], inputs[h, 1, k, i]
                a = _signed(a, signs[h], prime)
                b = _signed(b, signs[h], prime)
                aa, bb = times(a, a, c), times(b, b, c)
                aab, abb = times(aa, b, c), times(a, bb, c)
                out[0, k, i] = added(out[0, k, i], times(aa, a, c), prime)
                out[1, k, i] = added(out[1, k, i], added(added(aab, aab, prime), aab, prime), prime)
                out[2, k, i] = added(out[2, k, i], added(added(abb, abb, prime), abb, prime), prime)
                out[3, k, i] = added(out[3, k, i], times(bb, b, c), prime)


def power_sum(inputs: Words, signs: NDArray[np.int8], power: int, ring: Ring) -> Words:
    """Return the signed sum of powers of ciphertexts.

    Args:
        inputs: uint64 [H, 2, K, N]: ciphertexts as values at the roots.
        signs: int8 [H], 1 or -1.
        power: 2 or 3.
        ring: Of the elements.

    Returns:
        uint64 [power + 1, K, N]: the parts of one ciphertext.
    """
    if power not in {2, 3}:
        raise ValueError(f"power {power}: ciphertexts are squared or cubed")
    if inputs.shape[1:] != (2, len(ring.primes), ring.degree) or len(signs) != len(inputs):
        raise ValueError(f"ciphertexts of shape {list(inputs.shape)} do not fit {ring}")
    out = np.zeros((power + 1, len(ring.primes), ring.degree), np.uint64)
    (_squares if power == 2 else _cubes)(inputs, signs, constants(ring.primes), out)
    return out


@compiled_releasing
def _times_element(inputs: Any, element: Any, table: Any, out: Any) -> None:
    n_inputs, n_primes, degree = inputs.shape
    for j in range(n_inputs):
        for k in range(n_primes):
            for i in range(degree):
                out[j, k, i] = times(inputs[j, k, i], element[k, i], table[k])


def times_element(inputs: Words, element: Words, ring: Ring) -> Words:
    """Return elements times one element, all as values at the roots.

    Args:
        inputs: uint64 [n, K, N].
        element: uint64 [K, N].
        ring: Of the elements.
    """
    out = np.empty_like(inputs)
    _times_element(inputs, element, constants(ring.primes), out)
    return out


@compiled_releasing
def _add_constant(words: Any, constant: Any, prime: Any) -> None:
    for i in range(len(words)):
        words[i] = added(words[i], constant, prime)


def add_constants(ciphertexts: Words, numbers: list[int], ring: Ring) -> None:
    """Add a whole number to every slot of each ciphertext, in place.

    Args:
        ciphertexts: uint64 [H, 2, K, N] as values at the roots, changed.
        numbers: One per ciphertext, of any size and sign.
        ring: Of the elements.
    """
    for ciphertext, number in zip(ciphertexts, numbers, strict=True):
        for k, prime in enumerate(ring.primes):
            _add_constant(ciphertext[0, k], WORD(number % prime), WORD(prime))
