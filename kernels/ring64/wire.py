"""Words as the bytes that travel: only the lowest bytes of each, in planes.

A result that is known to fit 48 bits is computed modulo 2**48 as well as modulo 2**64, so six bytes
of every opened word are enough. The bytes lie in planes (all lowest four-byte parts, then two-byte
parts, then single bytes), because narrowing a whole column is what vector units do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

WORD_BYTES = 8


@compiled_releasing
def _widen(plane: Any, shift: int, words: Any) -> None:
    """Put a plane into words, in one pass."""
    for i in range(len(words)):
        words[i] |= np.uint64(plane[i]) << np.uint64(shift)


def packed(words: Words, width: int) -> Bytes:
    """Return the lowest ``width`` bytes of words.

    Args:
        words: uint64, any shape.
        width: 1 to 8.

    Returns:
        uint8 [words.size * width].

    Example:
        >>> packed(np.array([0x010203, 0x0A0B0C], np.uint64), 3).tolist()
        [3, 2, 12, 11, 1, 10]
    """
    flat = np.ascontiguousarray(words).ravel()
    out = np.empty(flat.size * width, np.uint8)
    for start, kind, shift in _planes(flat.size, width):
        plane = out[start : start + flat.size * kind.itemsize].view(kind)
        np.copyto(plane, flat >> np.uint64(shift) if shift else flat, casting="unsafe")
    return out


def unpacked(content: Bytes, width: int, shape: tuple[int, ...]) -> Words:
    """Return the words of `packed`, upper bytes zero.

    Args:
        content: uint8 [product of shape * width].
        width: 1 to 8.
        shape: Of the words.

    Raises:
        ValueError: When the number of bytes is another.
    """
    size = int(np.prod(shape))
    if content.size != size * width:
        raise ValueError(f"{size} words of {width} bytes are not {content.size} bytes")
    words = np.zeros(size, np.uint64)
    for start, kind, shift in _planes(size, width):
        _widen(content[start : start + size * kind.itemsize].view(kind), shift, words)
    return words.reshape(shape)


def signed(words: Words, bits: int) -> NDArray[np.int64]:
    """Return residues modulo ``2**bits`` as numbers from ``-2**(bits - 1)`` on.

    Example:
        >>> signed(np.array([1, 255, 128], np.uint64), 8).tolist()
        [1, -1, -128]
    """
    shift = np.int64(64 - bits)
    numbers: NDArray[np.int64] = (words << np.uint64(shift)).view(np.int64) >> shift
    return numbers


def _planes(size: int, width: int) -> Iterator[tuple[int, np.dtype[Any], int]]:
    """Yield where each plane starts, what it holds, and how far words are shifted for it."""
    if not 1 <= width <= WORD_BYTES:
        raise ValueError(f"a word has 1 to {WORD_BYTES} bytes, not {width}")
    done = 0
    for kind in (np.dtype("<u8"), np.dtype("<u4"), np.dtype("<u2"), np.dtype("u1")):
        if width - done >= kind.itemsize:
            yield done * size, kind, 8 * done
            done += kind.itemsize
