"""uvicorn's HTTP protocol with a short way for single transactions.

A request to score one transaction needs no task, no scope and no middleware: it is answered at the
end of the round of the event loop in which its last byte arrived. All that arrived in one round are
answered together, so the more there is to do, the less each one costs. Everything else takes
uvicorn's usual way to the application, where the same functions stand behind the same route.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectors.api.connection import ConnectionLimits, GuardedProtocol, Wire
from connectors.api.problem import Problem
from connectors.api.reply import Reply, reply_to
from connectors.api.scoring import ROUTE, Waiting

if TYPE_CHECKING:
    from connectors.api.gate import Gate
    from connectors.api.metrics import Metrics
    from connectors.api.scoring import Scoring
    from connectors.api.settings import ApiSettings

HOT_BYTES = 8 * 1024
"""Bodies up to this size take the short way."""

TOGETHER = 16
"""Most requests answered before the first of them get their answers."""

_PATH = ROUTE.encode()


_Taken = tuple["ScoreProtocol", Waiting | None, tuple[Reply, str] | None, bool]
"""A connection, its request or the refusal of it with its id, and whether to close afterwards."""


class ShortWay(Wire):
    """What the protocol needs to answer by itself; one for all connections.

    Attributes:
        scoring: Answers bodies.
    """

    def __init__(
        self, scoring: Scoring, gate: Gate, metrics: Metrics, settings: ApiSettings
    ) -> None:
        limits = ConnectionLimits(
            settings.max_connections, settings.read_seconds, settings.idle_seconds
        )
        super().__init__(gate, metrics, limits, tls=bool(settings.tls_certificate))
        self.scoring = scoring
        self._taken: list[_Taken] = []

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


def protocol_class(short: ShortWay) -> type[HttpToolsProtocol]:
    """Return the protocol bound to what it needs, as uvicorn's setting ``http`` takes it."""
    return type("BoundScoreProtocol", (ScoreProtocol,), {"wire": short})


class ScoreProtocol(GuardedProtocol):
    """One connection."""

    wire: ShortWay
    _hot: list[bytes] | None = None

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

    def shutdown(self) -> None:
        """Close when nothing is under way."""
        if self._hot is None:
            super().shutdown()
        elif not self._closing():
            self.transport.close()

    def _takes_short_way(self) -> bool:
        if self.parser.get_method() != b"POST" or self.expect_100_continue or not self._idle():
            return False
        size, plain_json = -1, False
        for name, value in self.headers:
            if name == b"content-length":
                size = int(value) if value.isdigit() else -1
            elif name == b"content-type":
                plain_json = value == b"application/json"
            elif name in (b"transfer-encoding", b"upgrade", b"content-encoding"):
                return False
        return plain_json and 0 <= size <= HOT_BYTES

    def _take(self, body: bytes) -> None:
        """Put a request into the round of the loop that is under way."""
        authorization = sent_id = b""
        for name, value in self.headers:
            if name == b"authorization":
                authorization = value
            elif name == b"x-request-id":
                sent_id = value
        close = not self.parser.should_keep_alive()
        self.wire.take(self, authorization, sent_id, body, close=close)

    def reply(self, reply: Reply, request_id: str, *, close: bool) -> None:
        """Send the answer to a request that was taken."""
        if self.transport.is_closing():
            return
        self.transport.write(self.wire.bytes_of(reply, request_id, close=close))
        self.server_state.total_requests += 1
        if close:
            self.transport.close()
