"""One connection of a server: limits on what may arrive, and on how long it may take to.

All of it before anything is parsed, and with answers that say what went wrong. What a server adds,
a short way or none, it adds in a class of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectors.api.problem import Problem
from connectors.api.reply import SECURITY_HEADERS, TLS_HEADER, Reply, reply_to

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from connectors.api.gate import Gate
    from connectors.api.metrics import RequestMetrics

MAX_HEAD_BYTES = 16 * 1024
"""Largest request line and headers together."""

SWEEP_SECONDS = 1.0
LINGER_SECONDS = 1.0
_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections may take.

    Attributes:
        max_connections: Most open ones.
        read_seconds: Time a request may take to arrive.
        idle_seconds: Time a connection may stay idle.
    """

    max_connections: int
    read_seconds: float
    idle_seconds: float


class Wire:
    """What every connection of a server needs; one for all of them.

    Attributes:
        gate: Gives requests their ids.
        limits: What connections may take.
        reply: ``(problem, request id) -> answer``.
    """

    def __init__(
        self,
        gate: Gate,
        metrics: RequestMetrics,
        limits: ConnectionLimits,
        *,
        tls: bool,
        reply: Callable[[Problem, str], Reply] = reply_to,
    ) -> None:
        self.gate, self.limits, self.reply = gate, limits, reply
        self._metrics = metrics
        pairs = (*SECURITY_HEADERS, *((TLS_HEADER,) if tls else ()))
        self._common = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode()

    def refused(self, status: int) -> None:
        """Count a request that was cut off."""
        self._metrics.requests.add("other", str(status))

    def bytes_of(self, reply: Reply, request_id: str, *, close: bool) -> bytes:
        """Return a reply as it goes over the wire."""
        more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        head = (
            f"content-type: {reply.media_type}\r\ncontent-length: {len(reply.body)}\r\n"
            f"x-request-id: {request_id}\r\n{more}"
        )
        end = b"connection: close\r\n\r\n" if close else b"\r\n"
        return b"".join(
            (_STATUS[reply.status], head.encode("latin-1"), self._common, end, reply.body)
        )


def guarded(wire: Wire) -> type[HttpToolsProtocol]:
    """Return the protocol bound to what it needs, as uvicorn's setting ``http`` takes it."""
    return type("BoundProtocol", (GuardedProtocol,), {"wire": wire})


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    wire: Wire

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._in_head = False
        self._began = 0.0
        self._active = self.loop.time()
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.wire.limits.max_connections:
            problem = Problem(
                503,
                "too-many-connections",
                f"{self.wire.limits.max_connections} connections are open",
                "Keep connections and reuse them",
                headers={"retry-after": "1"},
            )
            self._end(problem)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._ended:
            return
        self._active = self.loop.time()
        self._begin()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self._closing():
            self._end(
                Problem(
                    431,
                    "headers-too-large",
                    f"request line and headers have more than {MAX_HEAD_BYTES} bytes",
                    "Send fewer or shorter headers",
                )
            )

    def on_message_begin(self) -> None:
        """Note that a request begins in the middle of what arrived, behind another's end.

        What arrived with it is not counted: how much of it is the head is not known.
        """
        self._begin()
        super().on_message_begin()

    def _begin(self) -> None:
        if not self._began:
            self._began = self._active
            self._in_head = True
            self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._began = 0.0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        super().resume_writing()
        self.flow.resume_reading()

    def sweep(self, now: float) -> None:
        """Close the connection if a request takes too long to arrive, or none comes."""
        if self._closing():
            return
        limits = self.wire.limits
        if self._began and now - self._began > limits.read_seconds:
            self._end(
                Problem(
                    408,
                    "too-slow",
                    f"the request took more than {limits.read_seconds:g} seconds to arrive",
                    "Send it in one go",
                )
            )
        elif not self._began and self._idle() and now - self._active > limits.idle_seconds:
            self.transport.close()

    def _idle(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _closing(self) -> bool:
        return self._ended or self.transport is None or self.transport.is_closing()

    def _end(self, problem: Problem) -> None:
        """Answer with a problem and close.

        What the client is still sending is read and thrown away for a moment: closing at once would
        take the answer with it.
        """
        self._ended = True
        request_id = self.wire.gate.request_id()
        reply = self.wire.reply(problem, request_id)
        self.wire.refused(reply.status)
        if self._idle():
            self.transport.write(self.wire.bytes_of(reply, request_id, close=True))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


async def sweep_often(connections: set[Any]) -> None:
    """Close connections that take too long; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, GuardedProtocol):
                connection.sweep(now)
