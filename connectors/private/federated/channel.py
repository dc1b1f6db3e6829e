"""Framed messages over one socket: sizes first, then a small JSON header, then bytes.

Sizes are checked before anything is read or parsed, every message has one deadline however many
calls it takes, and the bytes behind the header are never interpreted here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

_SIZES = struct.Struct(">II")
HEADER_BYTES = 8_192
_PIECE = 1 << 20


class ChannelError(ConnectionError):
    """The other side is gone, too slow, or sends what is no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        header: JSON object.
        body: Bytes.
    """

    header: dict[str, Any]
    body: bytes = b""


class Channel:
    """Sends and receives messages over one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Message, *, seconds: float) -> None:
        """Send a message.

        Args:
            message: What to send.
            seconds: Until all of it must be handed over.

        Raises:
            ChannelError: When it cannot be sent in time.
        """
        deadline = time.monotonic() + seconds
        header = json.dumps(message.header).encode()
        if len(header) > HEADER_BYTES:
            raise ValueError(f"a header of {len(header)} bytes is longer than {HEADER_BYTES}")
        rest = memoryview(_SIZES.pack(len(header), len(message.body)) + header + message.body)
        try:
            # Not sendall: that of a TLS socket starts its timeout anew with every send it makes.
            while rest:
                self._wait_until(deadline)
                rest = rest[self._connection.send(rest[:_PIECE]) :]
        except TimeoutError:
            raise ChannelError("the other side did not take a message in time") from None
        except OSError as error:
            raise ChannelError(f"a message could not be sent ({error})") from error

    def receive(self, *, most: int, seconds: float) -> Message:
        """Return the next message.

        Args:
            most: Most bytes of its body.
            seconds: Until all of it must be there.

        Raises:
            ChannelError: When it is not, is longer, or is no message.
        """
        deadline = time.monotonic() + seconds
        header_size, body_size = _SIZES.unpack(self._read(_SIZES.size, deadline))
        if header_size > HEADER_BYTES or body_size > most:
            raise ChannelError(
                f"a message of {header_size} + {body_size} bytes is longer than {HEADER_BYTES} +"
                f" {most}"
            )
        raw = self._read(header_size, deadline)
        try:
            header = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ChannelError("the header of a message is no JSON") from error
        if not isinstance(header, dict):
            raise ChannelError("the header of a message is no JSON object")
        return Message(header, self._read(body_size, deadline))

    def close(self) -> None:
        """Close the connection; whoever waits on it is woken."""
        with contextlib.suppress(OSError):  # the other side may have closed it
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self, count: int, deadline: float) -> bytes:
        content = bytearray()
        while len(content) < count:
            try:
                self._wait_until(deadline)
                piece = self._connection.recv(min(count - len(content), _PIECE))
            except TimeoutError:
                raise ChannelError("no answer in time") from None
            except OSError as error:
                raise ChannelError(f"the connection broke ({error})") from error
            if not piece:
                raise ChannelError("the other side closed the connection")
            content += piece
        return bytes(content)

    def _wait_until(self, deadline: float) -> None:
        """Let the next call on the connection last to the deadline of its message.

        Raises:
            TimeoutError: When that has passed.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


def text_of(header: dict[str, Any], name: str, most: int = 1_024) -> str:
    """Return a text of a header.

    Raises:
        ChannelError: When it is missing, no text, or longer.
    """
    value = header.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise ChannelError(f"{name!r} of a message is no text of up to {most} characters")
    return value


def hex_of(header: dict[str, Any], name: str, count: int) -> bytes:
    """Return so many bytes that a header holds as hexadecimal text.

    Raises:
        ChannelError: When they are missing, or more or fewer.
    """
    text = text_of(header, name, 2 * count)
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != count:
        raise ChannelError(f"{name!r} of a message is not {count} bytes in hexadecimal")
    return value
