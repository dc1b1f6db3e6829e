"""The bytes of secure-sum messages: pieces of one known size, each under the place of a branch.

There is nothing to interpret: sizes and places are checked, the rest are keys, tags and words.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_COUNT = struct.Struct(">H")
_PLACE = struct.Struct(">H")
_LENGTH = struct.Struct(">I")


class ProtocolError(ValueError):
    """A message is not what the protocol has in its place."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a coordinator asks of a branch.

    Attributes:
        stage: Which message of the secure sum.
        round: Number of the sum.
        task: What is to be summed.
        body: Bytes as the stage has them.
    """

    stage: str
    round: int
    task: str
    body: bytes = b""


def pack(pieces: Mapping[int, bytes]) -> bytes:
    """Return pieces by place as bytes."""
    parts = [_COUNT.pack(len(pieces))]
    for place, piece in sorted(pieces.items()):
        parts += [_PLACE.pack(place), piece]
    return b"".join(parts)


def unpack(content: bytes, size: int, branches: int) -> dict[int, bytes]:
    """Read pieces by place.

    Args:
        content: What `pack` returned, of another process.
        size: Bytes of each piece.
        branches: Number of places there are.

    Raises:
        ProtocolError: When length, order or a place does not fit.
    """
    step = _PLACE.size + size
    if len(content) < _COUNT.size:
        raise ProtocolError("a message ends before its count")
    (count,) = _COUNT.unpack_from(content)
    if len(content) != _COUNT.size + count * step:
        raise ProtocolError(f"{count} pieces of {size} bytes do not fill {len(content)} bytes")
    found: dict[int, bytes] = {}
    last = -1
    for start in range(_COUNT.size, len(content), step):
        (place,) = _PLACE.unpack_from(content, start)
        if not last < place < branches:
            raise ProtocolError(f"place {place} is out of order, or none of {branches}")
        found[place] = content[start + _PLACE.size : start + step]
        last = place
    return found


def pack_places(places: Sequence[int]) -> bytes:
    """Return places as bytes."""
    return pack(dict.fromkeys(places, b""))


def join(first: bytes, second: bytes) -> bytes:
    """Return two blocks as one."""
    return _LENGTH.pack(len(first)) + first + second


def cut(content: bytes) -> tuple[bytes, bytes]:
    """Return the two blocks of `join`.

    Raises:
        ProtocolError: When the first is longer than all.
    """
    if len(content) < _LENGTH.size:
        raise ProtocolError("a message ends before its length")
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    if end > len(content):
        raise ProtocolError(f"a block of {length} bytes does not fit {len(content)} bytes")
    return content[_LENGTH.size : end], content[end:]


def read_words(content: bytes, count: int, what: str) -> Words:
    """Read uint64 [count].

    Raises:
        ProtocolError: When there are more or fewer.
    """
    if len(content) != 8 * count:
        raise ProtocolError(f"{what}: {len(content)} bytes instead of {8 * count}")
    return np.frombuffer(content, "<u8").astype(np.uint64, copy=False)
