"""Frames between a worker and its parent: a struct, JSON, raw bytes; nothing that could run.

A frame is ``magic, length of JSON, length of body`` (little endian: 4 bytes, uint32, uint64), then
both. The reader states how much it takes, before it takes it.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

HEAD = struct.Struct("<4sIQ")
MAGIC = b"PIM1"
MAX_JSON = 1 << 16


class WireError(ValueError):
    """Bytes that are no frame, or a frame that is larger than agreed."""


def send(stream: BinaryIO, said: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame."""
    text = json.dumps(said, allow_nan=False).encode()
    stream.write(HEAD.pack(MAGIC, len(text), len(body)) + text)
    if body:
        stream.write(body)
    stream.flush()


def receive(stream: BinaryIO, max_body: int) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None where the stream has ended.

    Raises:
        WireError: When the bytes are no frame, cut off, or more than allowed.
    """
    head = stream.read(HEAD.size)
    if not head:
        return None
    if len(head) < HEAD.size:
        raise WireError("a frame was cut off")
    magic, text_length, body_length = HEAD.unpack(head)
    if magic != MAGIC or text_length > MAX_JSON or body_length > max_body:
        raise WireError(f"no frame, or one above {MAX_JSON} + {max_body} bytes")
    text, body = stream.read(text_length), stream.read(body_length)
    if len(text) < text_length or len(body) < body_length:
        raise WireError("a frame was cut off")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame without JSON") from error
    if not isinstance(said, dict):
        raise WireError("a frame whose JSON is no object")
    return said, body
