"""Vectors in fewer bytes: zeros as a mask of bits, 32-bit floats as 8-bit codes by blocks.

Compiled, one pass each: a framework's own operations take eight passes for the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]
BLOCK = 256
"""Neighbours that share a scale."""


@compiled
def nonzero_bits(values: NDArray[np.int32]) -> tuple[Bits, int]:
    """Return which of n values are not zero, eight to a byte (lowest bit first), and how many.

    Works for integers of any width; floats are handed in as integers, so that -0.0 counts.
    """
    n = len(values)
    bits = np.empty((n + 7) // 8, np.uint8)
    count = 0
    whole = n // 8
    for i in range(whole):
        byte = 0
        for k in range(8):
            hit = int(values[8 * i + k] != 0)
            byte |= hit << k
            count += hit
        bits[i] = byte
    if whole < len(bits):
        byte = 0
        for k in range(n - 8 * whole):
            hit = int(values[8 * whole + k] != 0)
            byte |= hit << k
            count += hit
        bits[whole] = byte
    return bits, count


@compiled
def gathered(values: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], bool]:
    """Return the values that are not zero, in order, and whether they are all the same."""
    # One more than needed: the place is written before it is known to count.
    found = np.empty(count + 1, values.dtype)
    at = 0
    for i in range(len(values)):
        found[at] = values[i]
        at += int(values[i] != 0)
        at = min(at, count)
    same = True
    for i in range(1, count):
        same &= found[i] == found[0]
    return found[:count], same


@compiled
def scattered(bits: Bits, kept: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Undo `nonzero_bits` and `gathered`: fill ``out`` [n]; one kept value serves all bits."""
    n, at, last = len(out), 0, len(kept) - 1
    step = int(len(kept) > 1)
    for i in range(len(bits)):
        byte = int(bits[i])
        for k in range(min(8, n - 8 * i)):
            hit = (byte >> k) & 1
            # Without a branch, which a random mask would have guessed wrong half the time.
            out[8 * i + k] = kept[min(at, last)] * hit
            at += step * hit


@compiled
def to_codes(values: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 codes [n] and the scales of blocks of 256: value = code * scale.

    The error is at most half a scale, 1/254 of the largest of the block. NaN or infinity makes its
    whole block NaN.
    """
    n = len(values)
    codes = np.empty(n, np.int8)
    tops = np.zeros((n + BLOCK - 1) // BLOCK, np.int32)
    # Without their sign, floats are ordered like their bits; of integers it becomes vector code.
    patterns = values.view(np.int32)
    for b in range(len(tops)):
        top = np.int32(0)
        for i in range(b * BLOCK, min((b + 1) * BLOCK, n)):
            top = max(top, patterns[i] & np.int32(0x7FFFFFFF))
        tops[b] = top
    scales = tops.view(np.float32) / np.float32(127)
    for b in range(len(scales)):
        factor = np.float32(1) / scales[b] if scales[b] != 0 else np.float32(0)
        for i in range(b * BLOCK, min((b + 1) * BLOCK, n)):
            codes[i] = np.int32(np.rint(values[i] * factor))
    return codes, scales


@compiled
def from_codes(codes: NDArray[np.int8], scales: Floats, out: Floats) -> None:
    """Fill ``out`` [n] with the values of codes."""
    for b in range(len(scales)):
        for i in range(b * BLOCK, min((b + 1) * BLOCK, len(out))):
            out[i] = codes[i] * scales[b]
