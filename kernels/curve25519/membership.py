"""Whether u is the coordinate of a point of Curve25519 and not of its twist, for many u at once.

X25519 computes with either, and keeps which of both it was: a blinded value would tell one bit
about what was hashed. So hashes are tried until one lies on the curve: ``u**3 + 486662 u**2 + u``
is a square modulo p = 2**255 - 19, that is, its power (p - 1) / 2 is 1.

Numbers are ten limbs of 26 and 25 bits in turn (Bernstein, PKC 2006), limb by limb over 64 numbers,
so that the vector unit multiplies. Python's ``pow`` takes forty times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ring.modular import inlined

Words = NDArray[np.uint64]
WORD = np.uint64

PRIME = 2**255 - 19
_A = 486662
_LANES = 64
_LIMBS = 10
_WIDTHS = tuple(26 - i % 2 for i in range(_LIMBS))
_STARTS = tuple(sum(_WIDTHS[:i]) for i in range(_LIMBS))
_LOW = WORD(0xFFFFFFFF)


@inlined
def _carry(a: Any) -> None:
    """Bring limbs to 26 and 25 bits, but for a little in the lowest two."""
    n_limbs = len(a)
    for i in range(n_limbs):
        width = WORD(26 - i % 2)
        mask = (WORD(1) << width) - WORD(1)
        for t in range(_LANES):
            over = a[i, t] >> width
            a[i, t] &= mask
            if i < n_limbs - 1:
                a[i + 1, t] += over
            else:
                a[0, t] += over * WORD(19)
    for t in range(_LANES):
        a[1, t] += a[0, t] >> WORD(26)
        a[0, t] &= WORD((1 << 26) - 1)


@compiled_releasing
def _times(a: Any, b: Any, scratch: Any, out: Any) -> None:
    """Multiply; out may be a or b. Products of two odd limbs count twice, wrapped ones 19 times."""
    scratch[:] = WORD(0)
    n_limbs = len(a)  # not a constant to the compiler, which would unroll a hundred products
    for i in range(n_limbs):
        for j in range(n_limbs):
            factor = WORD((2 if i % 2 and j % 2 else 1) * (19 if i + j >= n_limbs else 1))
            k = (i + j) % n_limbs
            for t in range(_LANES):
                scratch[k, t] += (a[i, t] & _LOW) * ((b[j, t] * factor) & _LOW)
    _carry(scratch)
    out[:] = scratch


_STEPS = np.array(
    [
        # to, from, squared so many times, times
        (1, 0, 1, -1),  # 2
        (2, 1, 1, 1),  # 6
        (3, 1, 2, 0),  # 9
        (4, 3, 0, 1),  # 11
        (4, 4, 1, 3),  # 31 = 2**5 - 1
        (4, 4, 5, 4),  # 2**10 - 1
        (5, 4, 10, 4),  # 2**20 - 1
        (5, 5, 20, 5),  # 2**40 - 1
        (4, 5, 10, 4),  # 2**50 - 1
        (5, 4, 50, 4),  # 2**100 - 1
        (5, 5, 100, 5),  # 2**200 - 1
        (4, 5, 50, 4),  # 2**250 - 1
        (4, 4, 4, 2),  # 2**254 - 10 = 2**4 * (2**250 - 1) + 6
    ]
)
"""The power ``(p - 1) / 2`` by squarings and products of registers; the exponent reached beside."""
_REGISTERS = 6


@compiled_releasing
def _characters(limbs: Any, steps: Any, out: Any) -> None:
    """Set out to whether ``u (u (u + A) + 1)`` to the power ``(p - 1) / 2`` is 1."""
    shape = limbs.shape[1:]
    registers = np.empty((_REGISTERS, *shape), np.uint64)
    scratch, running = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    for block in range(len(limbs)):
        running[:] = limbs[block]
        # u + A, times u, plus 1, times u.
        for summand in (WORD(_A), WORD(1)):
            running[0] += summand
            _times(running, limbs[block], scratch, running)
        registers[0] = running
        for n in range(len(steps)):
            running[:] = registers[steps[n, 1]]
            for _ in range(steps[n, 2]):
                _times(running, running, scratch, running)
            if steps[n, 3] >= 0:
                _times(running, registers[steps[n, 3]], scratch, running)
            registers[steps[n, 0]] = running
        for _ in range(3):
            _carry(running)
        _is_one(running, out[block])


@inlined
def _is_one(a: Any, out: Any) -> None:
    """Whether a number below 2**255 is 1 or p + 1."""
    for t in range(_LANES):
        rest, full = WORD(0), WORD(0)
        for i in range(1, len(a)):
            rest |= a[i, t]
            full |= a[i, t] ^ ((WORD(1) << WORD(26 - i % 2)) - WORD(1))
        low = a[0, t]
        out[t] = (rest == WORD(0) and low == WORD(1)) or (
            full == WORD(0) and low == WORD((1 << 26) - 18)
        )


def on_curve(coordinates: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return whether coordinates belong to points of the curve.

    Args:
        coordinates: uint8 [n, 32], little-endian; the top bit is ignored, as X25519 does.
    """
    n = len(coordinates)
    blocks = max(1, -(-n // _LANES))
    words = np.zeros((blocks * _LANES, 5), np.uint64)
    words[:n, :4] = np.ascontiguousarray(coordinates).view("<u8")
    words[:, 3] &= WORD((1 << 63) - 1)
    limbs = np.empty((_LIMBS, blocks * _LANES), np.uint64)
    for i, (start, width) in enumerate(zip(_STARTS, _WIDTHS, strict=True)):
        place, shift = divmod(start, 64)
        limb = words[:, place] >> WORD(shift)
        if shift + width > 64:
            limb |= words[:, place + 1] << WORD(64 - shift)
        limbs[i] = limb & WORD((1 << width) - 1)
    by_block = np.ascontiguousarray(limbs.reshape(_LIMBS, blocks, _LANES).swapaxes(0, 1))
    out = np.zeros((blocks, _LANES), np.bool_)
    _characters(by_block, _STEPS, out)
    return out.ravel()[:n]


def on_curve_reference(coordinate: bytes) -> bool:
    """Return `on_curve` of one coordinate, by Python's numbers."""
    u = int.from_bytes(coordinate, "little") % (1 << 255)
    return pow(u * (u * (u + _A) + 1), (PRIME - 1) // 2, PRIME) == 1
