"""Arithmetic modulo a prime below 2**60 for compiled loops.

Remainders without division: Barrett's for any word, Shoup's for products with a constant
(Harvey 2014, "Faster arithmetic for number-theoretic transforms").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import njit, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])

WORD = np.uint64
_BITS = 64


def inlined(function: F) -> F:
    """Compile into whichever compiled function calls it."""
    made: F = njit(forceinline=True)(function)
    return made


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def product_high(typing_context: Any, a: Any, b: Any) -> Any:
    """Upper 64 bits of the product of two words: one instruction of the machine."""
    del typing_context, a, b

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        wide = ir.IntType(2 * _BITS)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, wide(_BITS)), ir.IntType(_BITS))

    return types.uint64(types.uint64, types.uint64), generate


@inlined
def reduced(word: Any, prime: Any, inverse: Any) -> Any:
    """Return a word modulo a prime; ``inverse`` is floor(2**64 / prime)."""
    rest = word - product_high(word, inverse) * prime
    return rest - prime if rest >= prime else rest


@inlined
def times_constant(word: Any, constant: Any, ratio: Any, prime: Any) -> Any:
    """Return word * constant modulo a prime; ``ratio`` is floor(constant * 2**64 / prime)."""
    rest = word * constant - product_high(word, ratio) * prime
    return rest - prime if rest >= prime else rest


@inlined
def added(a: Any, b: Any, prime: Any) -> Any:
    """Return a + b modulo a prime, both below it."""
    total = a + b
    return total - prime if total >= prime else total


@inlined
def signed(word: Any, prime: Any, inverse: Any) -> Any:
    """Return a signed number modulo a prime."""
    if word >= 0:
        return reduced(WORD(word), prime, inverse)
    rest = reduced(WORD(-word), prime, inverse)
    return prime - rest if rest else rest


@inlined
def from_two_words(high: Any, low: Any, prime: Any, inverse: Any, two64: Any, ratio: Any) -> Any:
    """Return high * 2**64 + low modulo a prime; two64 is 2**64 modulo it, ratio its own."""
    return added(
        times_constant(reduced(high, prime, inverse), two64, ratio, prime),
        reduced(low, prime, inverse),
        prime,
    )


def constants(primes: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return, for each prime, what remainders need: shape [K, 6], uint64.

    Columns: prime, floor(2**64 / prime), 2**30 and its ratio, 2**64 modulo prime and its ratio.
    """
    rows = []
    for prime in primes:
        half, two64 = (1 << 30) % prime, (1 << 64) % prime
        rows.append(
            (
                prime,
                (1 << 64) // prime,
                half,
                (half << 64) // prime,
                two64,
                (two64 << 64) // prime,
            )
        )
    return np.array(rows, dtype=np.uint64)
