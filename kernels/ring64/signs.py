"""The sign of a shared number, and nothing else: one opened word, then shared truth tables.

A shared v is masked by a dealt r, both modulo 2**b, and ``c = v + r`` is opened. The top bit of v
is that of c, plus that of r, plus the borrow "low bits of c < low bits of r" (Damgard et al., TCC
2006). Parties know c; of r they hold truth tables, each the exclusive or of two uniform ones (Ishai
et al., TCC 2013, one-time truth tables):

1. for each digit of 5 bits, two tables of 32 bits, looked up at the digit of c: less, equal;
2. for each 3 digits, two tables of 64 bits that combine the six results, looked up at their opened
   exclusive or with a dealt mask;
3. one table of 128 bits that combines four such pairs and adds the top bit of r.

Exact for every v of the ring. Tables are used once: a second look-up at another place would tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import inlined

Words = NDArray[np.uint64]
WORD = np.uint64

DIGIT_BITS = 5
GROUP = 3
GROUPS = 4
DIGITS = GROUP * GROUPS
MOST_BITS = DIGITS * DIGIT_BITS + 1
"""Widest ring in which signs can be taken."""
GROUP_BITS = 2 * GROUP
FINAL_BITS = 2 * GROUPS - 1
INDEX_BITS = GROUPS * GROUP_BITS
"""Bits of the opened indices of step 2; those of step 3 follow them in a party's mask."""
_COMBINED = 2 * GROUPS
_ALL = WORD(0xFFFFFFFFFFFFFFFF)


def digits_of(bits: int) -> int:
    """Return how many digits the low ``bits - 1`` bits have.

    Raises:
        ValueError: When the ring is too wide or too narrow.
    """
    if not 2 <= bits <= MOST_BITS:
        raise ValueError(f"signs are taken in rings of 2 to {MOST_BITS} bits, not {bits}")
    return -(-(bits - 1) // DIGIT_BITS)


def table_words(bits: int) -> int:
    """Return the words of tables that one sign uses up."""
    return digits_of(bits) + _COMBINED + 2


def _upper_half(bit: int) -> int:
    """Return the places below 64 whose number has a bit set, as a word."""
    return sum(1 << place for place in range(64) if place >> bit & 1)


_UPPER = np.array([_upper_half(bit) for bit in range(6)], np.uint64)


def _group_tables() -> Words:
    """Return both tables of step 2, over (less0, equal0, less1, equal1, less2, equal2)."""
    less = equal = 0
    for place in range(1 << GROUP_BITS):
        bits = [place >> i & 1 for i in range(GROUP_BITS)]
        less |= (bits[4] | bits[5] & (bits[2] | bits[3] & bits[0])) << place
        equal |= (bits[1] & bits[3] & bits[5]) << place
    return np.array([less, equal], np.uint64)


def _final_table() -> Words:
    """Return the table of step 3 over (less0, less1, equal1, less2, equal2, less3, equal3)."""
    table = 0
    for place in range(1 << FINAL_BITS):
        bits = [place >> i & 1 for i in range(FINAL_BITS)]
        inner = bits[3] | bits[4] & (bits[1] | bits[2] & bits[0])
        table |= (bits[5] | bits[6] & inner) << place
    return np.array([table & int(_ALL), table >> 64], np.uint64)


_GROUP_TABLES, _FINAL_TABLE = _group_tables(), _final_table()


@inlined
def _permuted(table: Any, mask: Any, upper: Any) -> Any:
    """Return the table of 64 bits whose entry i is entry ``i ^ mask``."""
    for bit in range(6):
        if (mask >> WORD(bit)) & WORD(1):
            shift = WORD(1 << bit)
            table = ((table & upper[bit]) >> shift) | ((table & ~upper[bit]) << shift)
    return table


@compiled_releasing
def _deal(
    masks: Any, index_masks: Any, bits: int, digits: int, constants: Any, upper: Any, out: Any
) -> None:
    low_bits = WORD(bits - 1)
    for i in range(len(masks)):
        mask, index_mask = masks[i], index_masks[i]
        low = mask & ((WORD(1) << low_bits) - WORD(1))
        for d in range(digits):
            digit = (low >> WORD(DIGIT_BITS * d)) & WORD(31)
            one = WORD(1) << digit
            out[i, d] = (one - WORD(1)) | (one << WORD(32))
        for g in range(GROUPS):
            part = (index_mask >> WORD(GROUP_BITS * g)) & WORD(63)
            out[i, digits + 2 * g] = _permuted(constants[0], part, upper)
            out[i, digits + 2 * g + 1] = _permuted(constants[1], part, upper)
        part = (index_mask >> WORD(INDEX_BITS)) & WORD(127)
        flip = _ALL * ((mask >> low_bits) & WORD(1))
        swap = part >> WORD(6)
        place = digits + _COMBINED
        out[i, place] = _permuted(constants[2 + np.int64(swap)], part, upper) ^ flip
        out[i, place + 1] = _permuted(constants[3 - np.int64(swap)], part, upper) ^ flip


@compiled_releasing
def _first_look(
    opened: Any, tables: Any, masks: Any, first: Any, bits: int, digits: int, out: Any
) -> None:
    index_mask = (WORD(1) << WORD(INDEX_BITS)) - WORD(1)
    low_mask = (WORD(1) << WORD(bits - 1)) - WORD(1)
    padding = WORD(0)
    for d in range(digits, DIGITS):
        padding |= first << WORD(2 * d + 1)
    for i in range(len(opened)):
        low = opened[i] & low_mask
        found = padding
        for d in range(digits):
            word = tables[i, d] >> ((low >> WORD(DIGIT_BITS * d)) & WORD(31))
            found |= (word & WORD(1)) << WORD(2 * d)
            found |= ((word >> WORD(32)) & WORD(1)) << WORD(2 * d + 1)
        out[i] = (found ^ masks[i]) & index_mask


@compiled_releasing
def _second_look(indices: Any, tables: Any, masks: Any, digits: int, out: Any) -> None:
    for i in range(len(indices)):
        found = WORD(0)
        for g in range(GROUPS):
            place = (indices[i] >> WORD(GROUP_BITS * g)) & WORD(63)
            less = (tables[i, digits + 2 * g] >> place) & WORD(1)
            equal = (tables[i, digits + 2 * g + 1] >> place) & WORD(1)
            # less0 stands at bit 0 and has no equal beside it.
            found |= less if g == 0 else (less | equal << WORD(1)) << WORD(2 * g - 1)
        out[i] = (found ^ (masks[i] >> WORD(INDEX_BITS))) & WORD(127)


@compiled_releasing
def _third_look(
    indices: Any, opened: Any, tables: Any, first: Any, bits: int, digits: int, out: Any
) -> None:
    for i in range(len(indices)):
        half = np.int64(indices[i] >> WORD(6))
        word = tables[i, digits + _COMBINED + half] >> (indices[i] & WORD(63))
        top = (opened[i] >> WORD(bits - 1)) & first
        out[i] = (word ^ top) & WORD(1)


def deal_tables(masks: Words, index_masks: Words, bits: int) -> Words:
    """Return the truth tables of masks. Only the dealer may see the result.

    Args:
        masks: uint64 [n], uniform; bits from ``bits`` on are ignored.
        index_masks: uint64 [n], the exclusive or of both parties' index masks.
        bits: The ring of the numbers, b.

    Returns:
        uint64 [n, table_words(bits)].
    """
    out = np.empty((len(masks), table_words(bits)), np.uint64)
    constants = np.concatenate([_GROUP_TABLES, _FINAL_TABLE])
    _deal(masks, index_masks, bits, digits_of(bits), constants, _UPPER, out)
    return out


def first_look(opened: Words, tables: Words, masks: Words, *, first: bool, bits: int) -> Words:
    """Return a party's share of the masked indices of step 2, `INDEX_BITS` each.

    Args:
        opened: uint64 [n], c.
        tables: uint64 [n, table_words(bits)], the party's share.
        masks: uint64 [n], the party's index mask.
        first: Whether this is party 0.
        bits: The ring of the numbers, b.
    """
    out = np.empty(len(opened), np.uint64)
    _first_look(opened, tables, masks, WORD(first), bits, digits_of(bits), out)
    return out


def second_look(indices: Words, tables: Words, masks: Words, *, bits: int) -> Words:
    """Return a party's share of the masked indices of step 3, `FINAL_BITS` each."""
    out = np.empty(len(indices), np.uint64)
    _second_look(indices, tables, masks, digits_of(bits), out)
    return out


def third_look(indices: Words, opened: Words, tables: Words, *, first: bool, bits: int) -> Words:
    """Return a party's share of the sign bits, 1 for negative: uint64 [n] of 0 and 1."""
    out = np.empty(len(indices), np.uint64)
    _third_look(indices, opened, tables, WORD(first), bits, digits_of(bits), out)
    return out
