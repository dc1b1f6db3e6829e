"""One tensor as it travels: a list in JSON, or raw bytes behind it. Both ways, server and client.

Raw bytes are little-endian and row-major; strings carry their length in front (4 bytes, unsigned).
JSON has no word for NaN and the infinities: they leave as null, and null is refused on the way in.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.model_server.datatypes import BYTES, DTYPES

Array = NDArray[Any]

MOST_DIMENSIONS = 16
_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}
"""Kind of a dtype -> kinds of JSON lists that fit it."""


class TensorError(ValueError):
    """A tensor that is not what it says it is; the message says which and why."""


def checked_shape(name: str, datatype: object, shape: object, most: int) -> tuple[int, ...]:
    """Return a shape after looking at it and at the datatype, before any data is touched.

    Args:
        name: Of the tensor, for messages.
        datatype: As announced.
        shape: As announced.
        most: Largest number of elements.

    Raises:
        TensorError: They are not those of a tensor, or of one that is too large.
    """
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise TensorError(
            f"{name}: datatype {str(datatype)[:40]!r} is unknown; one of {', '.join(DTYPES)}"
        )
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise TensorError(f"{name}: shape must be a list of at most {MOST_DIMENSIONS} numbers")
    if not all(type(side) is int and 0 <= side <= most for side in shape):
        raise TensorError(f"{name}: shape holds something else than numbers from 0 to {most}")
    if math.prod(shape) > most:
        raise TensorError(f"{name}: a shape of {shape} has more than {most} elements")
    return tuple(shape)


def from_json(
    name: str, data: object, datatype: str, shape: Sequence[int], *, nulls: bool = False
) -> Array:
    """Return the array of a list, flat or nested as its shape says.

    Args:
        name: Of the tensor, for messages.
        data: What stood in the JSON.
        datatype: As announced, checked.
        shape: As announced, checked.
        nulls: Read null in a flat list of floating numbers as NaN.

    Raises:
        TensorError: Other values, another number of them, or another nesting.
    """
    if not isinstance(data, list):
        raise TensorError(f"{name}: data must be a list")
    if datatype == BYTES:
        return _texts(name, data, shape)
    if nulls and datatype.startswith("FP"):
        data = [math.nan if value is None else value for value in data]
    try:
        found: Array = np.array(data) if data else np.zeros(0, DTYPES[datatype])
    except (ValueError, OverflowError):
        raise TensorError(f"{name}: the lists of data differ in length") from None
    if found.size == 0:
        found = found.astype(DTYPES[datatype])
    dtype = DTYPES[datatype]
    if dtype.kind in "iu" and found.dtype.kind in "fO":
        found = _whole(data, found)
    if found.dtype.kind not in _KINDS[dtype.kind]:
        raise TensorError(f"{name}: data holds values that are no {datatype}")
    made = _converted(name, found, datatype, dtype)
    if not nulls and dtype.kind == "f" and not np.isfinite(made).all():
        raise TensorError(f"{name}: data holds numbers beyond {datatype}")
    return _shaped(name, made, shape)


def to_json(array: Array) -> Any:
    """Return what `orjson` writes as a flat list."""
    if array.dtype.kind in "OUST":
        return [_text(value) for value in array.ravel().tolist()]
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array.ravel())


def from_bytes(name: str, raw: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Return the array of raw bytes; it lies in their memory where that is possible.

    Raises:
        TensorError: Another number of bytes than the shape asks for, or no values of the datatype.
    """
    if datatype == BYTES:
        return _shaped(name, _prefixed(name, raw, math.prod(shape)), shape)
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise TensorError(
            f"{name}: {len(raw)} bytes, but {datatype} of shape {list(shape)} takes {expected}"
        )
    if datatype == "BOOL":
        values = np.frombuffer(raw, np.uint8)
        if values.size and int(values.max()) > 1:
            raise TensorError(f"{name}: a BOOL is a byte of 0 or 1")
        return values.view(np.bool_).reshape(shape)
    # The bytes may begin at any place; kernels expect whole words.
    return np.require(np.frombuffer(raw, dtype), requirements="A").reshape(shape)


def to_bytes(array: Array) -> bytes:
    """Return raw bytes of an array."""
    if array.dtype.kind not in "OUST":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts = []
    for value in array.ravel().tolist():
        encoded = _text(value).encode()
        parts += [struct.pack("<I", len(encoded)), encoded]
    return b"".join(parts)


def _whole(data: list[Any], found: Array) -> Array:
    """Return lists of whole numbers that have no common type in NumPy, such as 1 and 2**63.

    They come as integers where one 64-bit type holds them, else as they were found.
    """
    exact = np.array(data, object)
    values = exact.ravel().tolist()
    if not all(type(value) is int for value in values):
        return found
    dtype = np.int64 if min(values) < 0 else np.uint64
    try:
        return exact.astype(dtype)
    except OverflowError:
        return found


def _converted(name: str, found: Array, datatype: str, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu" and found.size:
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise TensorError(f"{name}: data holds numbers beyond {datatype}")
    with np.errstate(over="ignore"):
        return found.astype(dtype)


def _shaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    wanted = tuple(shape)
    if array.size != math.prod(wanted):
        raise TensorError(
            f"{name}: data holds {array.size} values, but shape {list(wanted)} "
            f"asks for {math.prod(wanted)}"
        )
    if array.ndim > 1 and array.size and array.shape != wanted:
        raise TensorError(
            f"{name}: data is nested as {list(array.shape)}, but shape is {list(wanted)}"
        )
    return array.reshape(wanted)


def _texts(name: str, data: list[Any], shape: Sequence[int]) -> Array:
    depth, inner = 1, data
    while inner and isinstance(inner[0], list) and depth < len(shape):
        depth, inner = depth + 1, inner[0]
    flat: list[Any] = data
    for _ in range(depth - 1):
        if not all(isinstance(part, list) for part in flat):
            raise TensorError(f"{name}: the lists of data differ in depth")
        if len({len(part) for part in flat}) > 1:
            raise TensorError(f"{name}: the lists of data differ in length")
        flat = [value for part in flat for value in part]
    if not all(isinstance(value, str) for value in flat):
        raise TensorError(f"{name}: data holds values that are no {BYTES} (text)")
    made = np.empty(len(flat), object)
    made[:] = flat
    return _shaped(name, made, shape)


def _prefixed(name: str, raw: memoryview, count: int) -> Array:
    if count * 4 > len(raw):
        raise TensorError(f"{name}: {len(raw)} bytes are too few for {count} texts")
    made, at = np.empty(count, object), 0
    for position in range(count):
        if at + 4 > len(raw):
            raise TensorError(f"{name}: the bytes end within text {position}")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if size > len(raw) - at:
            raise TensorError(f"{name}: the bytes end within text {position}")
        try:
            made[position] = str(raw[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise TensorError(f"{name}: text {position} is no UTF-8") from None
        at += size
    if at != len(raw):
        raise TensorError(f"{name}: {len(raw) - at} bytes are left behind the last text")
    return made


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
