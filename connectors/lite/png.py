"""PNG with the standard library and numpy: gray and colour in 8 and 16 bits, with or without alpha.

By the specification (ISO/IEC 15948). Every pixel is predicted from the ones to its left and above,
so rows cannot be undone at once; pixels on one diagonal can, and on a flat array a diagonal is a
slice. So even Paeth's filter needs no loop over pixels.
"""

from __future__ import annotations

import struct
import zlib
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tasks.defects.edge.format import MAX_PIXELS, MAX_SIDE

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
MARK = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""By kind of colour: gray, RGB, and both with alpha."""
REFUSED = {
    b"tRNS": "transparent colours",
    b"iCCP": "a colour profile",
    b"eXIf": "a note of how it is turned",
    b"acTL": "several pictures",
}


class InputError(ValueError):
    """An input that is not run; says what it is and what to give."""


def decode_png(data: bytes) -> Pixels:
    """Return uint8 [h, w], uint8 [h, w, 3] or uint16 [h, w] (deep gray).

    Of deep colours and deep alpha the upper eight bits are kept. Alpha is laid over black.

    Raises:
        InputError: For broken files, images too large, palettes, interlacing and `REFUSED`.
    """
    width, height, depth, channels, packed = _chunks(data)
    size = channels * depth // 8
    wanted = height * (1 + width * size)
    unpack = zlib.decompressobj()
    try:
        rows = unpack.decompress(packed, wanted)
    except zlib.error as error:
        raise InputError("a broken PNG: it does not unpack; copy it anew") from error
    if len(rows) < wanted:
        raise InputError("a broken PNG: rows are missing; copy it anew")
    filtered = np.frombuffer(rows, np.uint8).reshape(height, 1 + width * size)
    flat = unfilter(filtered[:, 0], filtered[:, 1:].reshape(height, width, size))
    if depth == 16:
        deep = flat.view(">u2")
        if channels == 1:
            return deep[..., 0].astype(np.uint16)
        flat = (deep >> 8).astype(np.uint8)
    if channels in {2, 4}:
        colour = flat[..., :-1].astype(np.uint16) * flat[..., -1:] // 255
        flat = colour.astype(np.uint8)
    return np.ascontiguousarray(flat[..., 0] if flat.shape[2] == 1 else flat)


def require_size(width: int, height: int) -> None:
    """Raise `InputError` for no pixels, or more than are judged."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise InputError(
            f"{height:,} x {width:,} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all"
        )


def unfilter(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the prediction of pixels.

    Args:
        filters: uint8 [h], of each row: none, left, above, mean of both, Paeth.
        rows: uint8 [h, w, bytes of a pixel].

    Raises:
        InputError: For another filter.
    """
    if filters.max() > 4:
        raise InputError("a broken PNG: an unknown filter; copy it anew")
    if not filters.any():
        return np.ascontiguousarray(rows)
    height, width, size = rows.shape
    stride = width + 1  # a black column on the left and a black row above
    whole = np.zeros((height + 1, stride, size), np.uint8)
    whole[1:, 1:] = rows
    flat = whole.reshape(-1, size)
    for step in range(height + width - 1):
        top, last = max(0, step - width + 1), min(height - 1, step)
        first, span = (top + 1) * stride + (step - top + 1), (last - top) * width + 1
        # One row down and one column to the left is `width` places on.
        place, *near = (
            flat[first - d : first - d + span : width] for d in (0, 1, stride, stride + 1)
        )
        left, above, corner = (cells.astype(np.int16) for cells in near)
        chosen = filters[top : last + 1, None]
        guess = np.select(
            [chosen == 4, chosen == 2, chosen == 1, chosen == 3],
            [_paeth(left, above, corner), above, left, (left + above) >> 1],
        )
        place += guess.astype(np.uint8)
    return np.ascontiguousarray(whole[1:, 1:])


def _paeth(
    left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]
) -> NDArray[np.int16]:
    """Return the neighbour nearest to left + above - corner; of equals the first named."""
    from_left, from_above = np.abs(above - corner), np.abs(left - corner)
    from_corner = np.abs(left + above - 2 * corner)
    other = np.where(from_above <= from_corner, above, corner)
    near = (from_left <= from_above) & (from_left <= from_corner)
    return cast("NDArray[np.int16]", np.where(near, left, other))


def _chunks(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Return width, height, bits, channels and what is to be unpacked."""
    if data[:8] != MARK:
        raise InputError("no PNG file")
    header, packed, at = b"", [], 8
    while True:
        if at + 12 > len(data):
            raise InputError("a broken PNG: it ends early; copy it anew")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            raise InputError("a broken PNG: it ends early; copy it anew")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise InputError("a broken PNG: a checksum is wrong; copy it anew")
        if name in REFUSED:
            raise InputError(f"a PNG with {REFUSED[name]}; write it plain, or give the array")
        if name == b"IHDR" and not header and length == 13:
            header = data[at + 8 : end]
        elif name == b"IDAT":
            packed.append(data[at + 8 : end])
        elif name == b"IEND":
            break
        at = end + 4
    if not header:
        raise InputError("a broken PNG: it has no header; copy it anew")
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    require_size(width, height)
    if kind not in CHANNELS or depth not in {8, 16} or interlaced:
        raise InputError(
            "a PNG with a palette, of few bits or interlaced; write gray or RGB in 8 or 16 bits"
        )
    return width, height, depth, CHANNELS[kind], b"".join(packed)
