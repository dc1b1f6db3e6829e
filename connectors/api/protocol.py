"""uvicorn's HTTP protocol with a short way for single transactions.

A request to score one transaction needs no task, no scope and no middleware: it is answered at the
end of the round of the event loop in which its last byte arrived. All that arrived in one round are
answered together, so the more there is to do, the less each one costs. Everything else takes
uvicorn's usual way to the application, where the same functions stand behind the same route. Here
too: limits on what may arrive, and on how long it may take to, before anything is parsed.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectors.api.problem import Problem
from connectors.api.reply import SECURITY_HEADERS, TLS_HEADER, Reply, reply_to
from connectors.api.scoring import ROUTE, Waiting

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from connectors.api.gate import Gate
    from connectors.api.metrics import Metrics
    from connectors.api.scoring import Scoring
    from connectors.api.settings import ApiSettings

MAX_HEAD_BYTES = 16 * 1024
"""Largest request line and headers together."""

HOT_BYTES = 8 * 1024
"""Bodies up to this size take the short way."""

TOGETHER = 16
"""Most requests answered before the first of them get their answers."""

SWEEP_SECONDS = 1.0
LINGER_SECONDS = 1.0
_PATH = ROUTE.encode()
_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


_Taken = tuple["ScoreProtocol", Waiting | None, tuple[Reply, str] | None, bool]
"""A connection, its request or the refusal of it with its id, and whether to close afterwards."""


class ShortWay:
    """What the protocol needs to answer by itself; one for all connections.

    Attributes:
        scoring: Answers bodies.
        gate: Lets requests pass.
    """

    def __init__(
        self, scoring: Scoring, gate: Gate, metrics: Metrics, settings: ApiSettings
    ) -> None:
        self.scoring, self.gate, self._metrics = scoring, gate, metrics
        self._taken: list[_Taken] = []
        self.max_connections = settings.max_connections
        self.read_seconds, self.idle_seconds = settings.read_seconds, settings.idle_seconds
        pairs = (*SECURITY_HEADERS, *((TLS_HEADER,) if settings.tls_certificate else ()))
        self._common = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode()

    def take(
        self,
        connection: ScoreProtocol,
        authorization: bytes,
        sent_id: bytes,
        body: bytes,
        *,
        close: bool,
    ) -> None:
        """Let a request wait for the end of this round of the loop."""
        request_id = self.gate.request_id(sent_id)
        if not self._taken:
            connection.loop.call_soon(self._answer)
        try:
            request = Waiting(self.gate.token(authorization, "score"), body, request_id)
            self._taken.append((connection, request, None, close))
        except Problem as problem:
            self._taken.append(
                (connection, None, (reply_to(problem, request_id), request_id), close)
            )

    def _answer(self) -> None:
        """Answer all requests that came in one round, a few at a time."""
        taken, self._taken = self._taken, []
        for start in range(0, len(taken), TOGETHER):
            part = taken[start : start + TOGETHER]
            began = perf_counter_ns()
            waiting = [request for _, request, _, _ in part if request is not None]
            made = iter(self.scoring.together(waiting) if waiting else ())
            statuses = []
            for connection, request, refused, close in part:
                if request is not None:
                    reply, request_id = next(made), request.request_id
                elif refused is not None:
                    reply, request_id = refused
                connection.reply(reply, request_id, close=close)
                statuses.append(reply.status)
            self.scoring.count(statuses, perf_counter_ns() - began)

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


def protocol_class(short: ShortWay) -> type[HttpToolsProtocol]:
    """Return the protocol bound to what it needs, as uvicorn's setting ``http`` takes it."""
    return type("BoundScoreProtocol", (ScoreProtocol,), {"short": short})


class ScoreProtocol(HttpToolsProtocol):
    """One connection."""

    short: ShortWay

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._hot: list[bytes] | None = None
        self._head_bytes = 0
        self._in_head = False
        self._began = 0.0
        self._active = self.loop.time()
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.short.max_connections:
            problem = Problem(
                503,
                "too-many-connections",
                f"{self.short.max_connections} connections are open",
                "Keep connections and reuse them",
                headers={"retry-after": "1"},
            )
            self._end(problem)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._ended:
            return
        self._active = self.loop.time()
        if not self._began:
            self._began = self._active
            self._in_head = True
            self._head_bytes = 0
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

    def on_headers_complete(self) -> None:
        """Choose the way of the request."""
        self._in_head = False
        if self.url == _PATH and self._takes_short_way():
            self._hot = []
            return
        self._hot = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        if self._hot is not None:
            self._hot.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer, or let the application know that the body is whole."""
        self._began = 0.0
        if self._hot is None:
            super().on_message_complete()
            return
        parts, self._hot = self._hot, None
        self._take(parts[0] if len(parts) == 1 else b"".join(parts))

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        super().resume_writing()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Close when nothing is under way."""
        if self._hot is None:
            super().shutdown()
        elif not self._closing():
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Close the connection if a request takes too long to arrive, or none comes."""
        if self._closing():
            return
        if self._began and now - self._began > self.short.read_seconds:
            self._end(
                Problem(
                    408,
                    "too-slow",
                    f"the request took more than {self.short.read_seconds:g} seconds to arrive",
                    "Send it in one go",
                )
            )
        elif not self._began and self._idle() and now - self._active > self.short.idle_seconds:
            self.transport.close()

    def _takes_short_way(self) -> bool:
        if self.parser.get_method() != b"POST" or self.expect_100_continue or not self._idle():
            return False
        size = -1
        for name, value in self.headers:
            if name == b"content-length":
                size = int(value) if value.isdigit() else -1
            elif name in (b"transfer-encoding", b"upgrade", b"content-encoding") or (
                name == b"content-type" and not value.startswith(b"application/json")
            ):
                return False
        return 0 <= size <= HOT_BYTES

    def _take(self, body: bytes) -> None:
        """Put a request into the round of the loop that is under way."""
        authorization = sent_id = b""
        for name, value in self.headers:
            if name == b"authorization":
                authorization = value
            elif name == b"x-request-id":
                sent_id = value
        close = not self.parser.should_keep_alive()
        self.short.take(self, authorization, sent_id, body, close=close)

    def reply(self, reply: Reply, request_id: str, *, close: bool) -> None:
        """Send the answer to a request that was taken."""
        if self.transport.is_closing():
            return
        self.transport.write(self.short.bytes_of(reply, request_id, close=close))
        self.server_state.total_requests += 1
        if close:
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
        request_id = self.short.gate.request_id()
        reply = reply_to(problem, request_id)
        self.short.refused(reply.status)
        if self._idle():
            self.transport.write(self.short.bytes_of(reply, request_id, close=True))
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
            if isinstance(connection, ScoreProtocol):
                connection.sweep(now)
