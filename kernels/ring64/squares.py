"""Squares of shared numbers, cut to fewer bits, for one opened word each.

A shared number a with ``|a| < 2**(k - 2)`` is masked by a dealt r uniform modulo 2**k, and
``c = a + 2**(k - 2) + r`` is opened. Then, exactly,

    floor((a + 2**(k - 2)) / 2**s) = (c >> s) - (r >> s) + wrap * 2**(k - s) - borrow

where ``wrap`` is "top bit of r and not top bit of c" (the masked number lies in the lower half of
the ring) and ``borrow`` is 0 or 1. Leaving out the borrow gives t within one step of ``a / 2**s``,
always: nothing wraps with any probability. With ``C = (c >> s) - 2**(k - 2 - s)``, ``R = r >> s``,
``m = top bit of r * 2**(k - s)``, ``u = 1 - top bit of c`` and ``rho = R - u m``, t is ``C - rho``,
and its square is ``C**2 - 2 C rho + R**2 + u (m**2 - 2 R m)``: linear in what the dealer shared. So
one opening cuts and squares. (Truncation by a dealt pair: Catrina and Saxena, FC 2010; exact wrap
from the top bit: Escudero et al., CRYPTO 2020; squares from a dealt square: Beaver, CRYPTO 1991.)

m and ``m**2 - 2 R m`` are multiples of 2**(k - s): their quotients are shared modulo 2**32, two in
a word, which is enough where ``s <= k - 32``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing

Words = NDArray[np.uint64]
WORD = np.uint64

_HALF = WORD(0xFFFFFFFF)


@compiled_releasing
def _deal(masks: Any, signs: Any, bits: int, cut: int, out: Any) -> None:
    n_rows, units = masks.shape
    ring = WORD(64 - bits)
    step, top, gap = WORD(cut), WORD(bits - 1), WORD(bits - cut)
    for i in range(n_rows):
        squares = WORD(0)
        for h in range(units):
            mask = (masks[i, h] << ring) >> ring
            kept = mask >> step
            bit = mask >> top
            quotient = bit * ((WORD(1) << gap) - (kept << WORD(1)))
            out[i, h] = kept
            out[i, units + h] = (bit & _HALF) | (quotient << WORD(32))
            squares += kept * kept * signs[h]
        out[i, 2 * units] = squares


@compiled_releasing
def _evaluate(
    opened: Any, shares: Any, signs: Any, first: Any, bits: int, cut: int, out: Any
) -> None:
    n_rows, units = opened.shape
    ring = WORD(64 - bits)
    step, top, gap = WORD(cut), WORD(bits - 1), WORD(bits - cut)
    centre = WORD(1) << WORD(bits - 2 - cut)
    for i in range(n_rows):
        total = shares[i, 2 * units]
        for h in range(units):
            word = (opened[i, h] << ring) >> ring
            number = (word >> step) - centre
            low = WORD(1) - (word >> top)
            twice = number << WORD(1)
            packed = shares[i, units + h]
            part = (low << gap) * (twice * (packed & _HALF) + (packed >> WORD(32)))
            part += first * number * number - twice * shares[i, h]
            total += part * signs[h]
        out[i] = total


def deal_squares(masks: Words, signs: Words, *, bits: int, cut: int) -> Words:
    """Return what the dealer shares about masks. Only the dealer may see the result.

    Args:
        masks: uint64 [n, H], uniform.
        signs: uint64 [H], 1 or 2**64 - 1.
        bits: The ring of the masked numbers, k.
        cut: Bits to leave out, s.

    Returns:
        uint64 [n, 2 H + 1]: r >> s; top bit and quotient in two halves; signed sum of squares.
    """
    _check(bits, cut)
    out = np.empty((len(masks), 2 * masks.shape[1] + 1), np.uint64)
    _deal(masks, signs, bits, cut, out)
    return out


def split_squares(dealt: Words, share: Words) -> Words:
    """Return the other party's share of `deal_squares`, one party's being ``share``."""
    units = dealt.shape[1] // 2
    other = dealt - share
    halves = slice(units, 2 * units)
    low = (dealt[:, halves] & _HALF) - (share[:, halves] & _HALF)
    high = (dealt[:, halves] >> WORD(32)) - (share[:, halves] >> WORD(32))
    other[:, halves] = (low & _HALF) | (high << WORD(32))
    return other


def signed_squares(
    opened: Words, shares: Words, signs: Words, *, first: bool, bits: int, cut: int
) -> Words:
    """Return a party's share of the signed sum of squares of cut numbers.

    Args:
        opened: uint64 [n, H], masked numbers c.
        shares: uint64 [n, 2 H + 1], the party's share of `deal_squares`.
        signs: uint64 [H], 1 or 2**64 - 1.
        first: Whether this is party 0.
        bits: The ring of the masked numbers, k.
        cut: Bits to leave out, s.

    Returns:
        uint64 [n], modulo 2**64.
    """
    _check(bits, cut)
    if shares.shape != (len(opened), 2 * opened.shape[1] + 1):
        raise ValueError(f"shares {list(shares.shape)} do not fit opened {list(opened.shape)}")
    out = np.empty(len(opened), np.uint64)
    _evaluate(opened, shares, signs, WORD(first), bits, cut, out)
    return out


def _check(bits: int, cut: int) -> None:
    if not (34 <= bits <= 64 and 1 <= cut <= bits - 32):
        raise ValueError(f"{bits} bits cannot be cut by {cut}: 34 to 64 bits by 1 to bits - 32")
