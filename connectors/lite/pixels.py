"""Inputs from files: arrays (``.npy``), gray and colour images (``.png``, ``.pgm``, ``.ppm``).

Written with the standard library and numpy. Sizes are checked by the header before anything of
that size is made. Pixels are those that the house's reader gives: gray in 8 or 16 bits, colour in
8, alpha over black. What would need more (profiles, turned or interlaced images) is refused.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from connectors.lite.png import InputError, decode_png, require_size

MAX_BYTES = 512 * 2**20
"""Of a file, and of the array in it."""
MAX_HEADER = 10_000
SUFFIXES = (".npy", ".png", ".pgm", ".ppm")
_NETPBM = re.compile(rb"(P[56])(?:\s+(?:#[^\n]*\n\s*)*)(\d{1,6})\s+(\d{1,6})\s+(\d{1,6})\s")


def read_input(path: Path) -> NDArray[Any]:
    """Return what a file holds: any array of numbers, or pixels.

    Pixels are uint8 [h, w], uint8 [h, w, 3] or uint16 [h, w].

    Raises:
        InputError: For another kind of file, a broken one or one that is too large.
        OSError: When it cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: files ending in {', '.join(SUFFIXES)} are read; convert it")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read")
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return _npy(file, size)
        data = path.read_bytes()
        return decode_png(data) if path.suffix.lower() == ".png" else _netpbm(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _npy(file: BinaryIO, size: int) -> NDArray[Any]:
    """Read an array; its header is read first, for numpy would make room for what it says."""
    form: Any = np.lib.format  # untyped in part
    headers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    try:
        read_header = headers[form.read_magic(file)]
        shape, _, dtype = read_header(file, max_header_size=MAX_HEADER)
    except Exception as error:  # numpy tells of a broken header by many types
        raise InputError("no array file that is read, or a broken one; save it anew") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise InputError(f"an array of {dtype}; numbers are read, nothing else")
    wanted, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=1) < 0 or wanted != held:
        raise InputError(
            f"an array {shape} of {dtype} has {wanted:,} bytes, the file {held:,}; copy it anew"
        )
    file.seek(0)
    made: NDArray[Any] = np.load(file, allow_pickle=False)
    return made


def _netpbm(data: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read binary gray (P5, up to 255 or 65,535) or colour (P6, up to 255)."""
    found = _NETPBM.match(data[:MAX_HEADER])
    if found is None:
        raise InputError("no binary PGM (P5) or PPM (P6) file")
    kind = found[1]
    width, height, most = (int(number) for number in found.groups()[1:])
    require_size(width, height)
    if most != 255 and (kind, most) != (b"P5", 65_535):
        raise InputError(f"highest value {most}; write 255, or 65535 for deep gray images")
    channels = 1 if kind == b"P5" else 3
    dtype = np.dtype(">u2" if most > 255 else "u1")
    wanted, held = width * height * channels * dtype.itemsize, len(data) - found.end()
    if held < wanted:
        raise InputError(f"{wanted:,} bytes of pixels belong in it, {held:,} are; copy it anew")
    flat = np.frombuffer(data, dtype, width * height * channels, found.end())
    shaped = flat.reshape((height, width) if channels == 1 else (height, width, 3))
    return shaped.astype(dtype.newbyteorder("="))
