"""Frames on the wire: 16 bytes of header, then content of a length that the kind allows.

Header, little-endian: ``PJ``, version (1), kind (1 byte), length (4), sequence number (8), counted
from 0 in each direction. TLS already forbids changes on the way; numbers and kinds catch a party
that is out of step, lengths are checked before a byte of memory is taken.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from connectors.private.joint.errors import WireError

HEADER = struct.Struct("<2sBBIQ")
_MAGIC, _VERSION = b"PJ", 1


class Kind(enum.IntEnum):
    """What a frame holds."""

    HELLO = 1
    STEP = 2
    DONE = 3
    REFUSAL = 4


LIMITS = {Kind.HELLO: 4_096, Kind.STEP: 0, Kind.DONE: 0, Kind.REFUSAL: 512}
"""Most bytes of each kind; a session sets that of steps to what its plan needs."""


class Header(NamedTuple):
    """A frame's header."""

    kind: Kind
    length: int
    sequence: int


def write_header(header: Header) -> bytes:
    """Return a header's bytes."""
    return HEADER.pack(_MAGIC, _VERSION, header.kind, header.length, header.sequence)


def read_header(content: bytes | memoryview, sequence: int, limits: dict[Kind, int]) -> Header:
    """Read a header.

    Args:
        content: 16 bytes.
        sequence: The number that is due.
        limits: Most bytes of each kind.

    Raises:
        WireError: When it is none, out of order, or longer than its kind may be.
    """
    magic, version, kind, length, number = HEADER.unpack(content)
    if magic != _MAGIC or version != _VERSION:
        raise WireError("what came is no frame of this protocol, version 1; update the older side")
    if kind not in limits:
        raise WireError(f"a frame of the unknown kind {kind} came")
    if number != sequence:
        raise WireError(f"frame {number} came where frame {sequence} was due")
    if length > limits[Kind(kind)]:
        raise WireError(
            f"a frame of {length} bytes came; {Kind(kind).name} may have {limits[Kind(kind)]}"
        )
    return Header(Kind(kind), length, number)
