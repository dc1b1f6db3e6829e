"""An open-loop load generator: requests leave when a Poisson process says so, answered or not.

Latency counts from the moment a request was due, so a server that stalls cannot hide it by keeping
later requests from being sent (coordinated omission). One thread, one epoll and raw sockets: about
25 us of CPU per request, a tenth of what the API needs. It runs in a process of its own: settings
come as JSON on standard input, figures leave as one JSON line.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CONNECTIONS = 512
"""Most connections; a request that is due and finds none free waits, and its latency runs."""

GIVE_UP_SECONDS = 15.0
_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        port: Where the API listens on the loopback interface.
        token: Bearer token.
        rate: Requests per second.
        seconds: How long.
        first_id: Id of the first event.
        first_time: Time of the first event, in the unit of the data.
        customers: Entities to draw from, by Zipf's law.
        terminals: The same.
        exponent: Exponent of Zipf's law.
        seed: Seed of arrivals, entities and amounts.
        connections: Connections to open before the first request.
        replay: File of requests to send in turn in place of transactions: a JSON list of objects
            ``path``, ``headers`` and ``body`` (base64); empty: transactions.
    """

    port: int
    token: str
    rate: float
    seconds: float
    first_id: int
    first_time: int
    customers: int = 1_000
    terminals: int = 2_000
    exponent: float = 1.1
    seed: int = 7
    connections: int = 32
    replay: str = ""


@dataclass
class Result:
    """What came back.

    Attributes:
        sent: Requests sent.
        seconds: From the first request due to the last answer.
        statuses: Answers by status; ``none`` for those that never came.
        p50_ms: Median latency of all answers with status 200, from when they were due.
        p99_ms: The same, 99 % quantile.
        p999_ms: The same, 99.9 % quantile.
        max_ms: The same, longest.
        with_reasons: Share of the answers with status 200 that carry reasons or say there are none.
        complete: Share of the answers with status 200 that left nothing out.
        cpu_us: CPU time of this process per request.
    """

    sent: int = 0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0
    with_reasons: float = 0.0
    complete: float = 0.0
    cpu_us: float = 0.0

    @property
    def good(self) -> int:
        return self.statuses.get("200", 0)

    @property
    def errors(self) -> int:
        return self.sent - self.good


def zipf_codes(rng: np.random.Generator, entities: int, exponent: float, n: int) -> np.ndarray:
    """Return n codes in 0..entities-1, the k-th most frequent with weight k ** -exponent."""
    weights = np.arange(1, entities + 1, dtype=np.float64) ** -exponent
    order = np.random.default_rng(entities).permutation(entities)
    return order[rng.choice(entities, size=n, p=weights / weights.sum())]


def transactions(load: Load, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return n transactions of the demo's kind, one second of event time after the other."""
    customers = zipf_codes(rng, load.customers, load.exponent, n).tolist()
    terminals = zipf_codes(rng, load.terminals, load.exponent, n).tolist()
    amounts = np.clip(rng.lognormal(8.2, 0.9, n), 100, 90_000).astype(int).tolist()
    return [
        {
            "tx_id": load.first_id + i,
            "t": load.first_time + i,
            "customer": customers[i],
            "terminal": terminals[i],
            "amount_cents": amounts[i],
        }
        for i in range(n)
    ]


def request_bytes(
    load: Load, body: bytes, path: str = "/v1/score", headers: dict[str, str] | None = None
) -> bytes:
    """Return a request as it goes over the wire."""
    given = headers or {"Content-Type": "application/json"}
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {load.token}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in given.items())
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def requests_of(load: Load, n: int, rng: np.random.Generator) -> list[bytes]:
    """Return n requests: transactions, or those of a file in turn."""
    if load.replay:
        listed = json.loads(Path(load.replay).read_text())
        made = [
            request_bytes(load, base64.b64decode(one["body"]), one["path"], one["headers"])
            for one in listed
        ]
        return [made[i % len(made)] for i in range(n)]
    return [
        request_bytes(load, json.dumps(row, separators=(",", ":")).encode())
        for row in transactions(load, n, rng)
    ]


class Sender:
    """Sends requests when they are due and takes answers as they come."""

    def __init__(self, load: Load) -> None:
        self.load = load
        rng = np.random.default_rng(load.seed)
        gaps = rng.exponential(1 / load.rate, max(int(load.rate * load.seconds * 1.2) + 50, 50))
        due = np.cumsum(gaps)
        self.due = due[due < load.seconds].tolist()
        self.requests = requests_of(load, len(self.due), rng)
        self.poll = select.epoll()
        self.idle: list[socket.socket] = []
        self.busy: dict[int, tuple[socket.socket, float]] = {}
        self.part: dict[int, bytes] = {}
        self.open = 0
        self.latency: list[float] = []
        self.result = Result(sent=len(self.due))
        self.reasoned = self.whole = 0
        for _ in range(load.connections):
            self.idle.append(self._connect())

    def run(self) -> Result:
        """Send everything; returns the figures."""
        clock, due, requests = time.perf_counter, self.due, self.requests
        n, i, last = len(due), 0, 0.0
        cpu, began = time.process_time(), clock() + 0.05
        while i < n or self.busy:
            now = clock() - began
            while i < n and due[i] <= now and (self.idle or self.open < CONNECTIONS):
                connection = self.idle.pop() if self.idle else self._connect()
                self.busy[connection.fileno()] = (connection, due[i])
                connection.send(requests[i])
                i += 1
                now = clock() - began
            wait = max(due[i] - now, 0.0) if i < n and due[i] > now else 0.02
            # select takes microseconds where epoll itself rounds up to milliseconds.
            if select.select([self.poll.fileno()], [], [], wait)[0]:
                for handle, _ in self.poll.poll(0):
                    self._receive(handle, began)
                last = clock() - began
            elif i >= n and clock() - began > self.load.seconds + GIVE_UP_SECONDS:
                break
        return self._figures(last, time.process_time() - cpu)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.load.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self.poll.register(connection.fileno(), select.EPOLLIN)
        self.open += 1
        return connection

    def _receive(self, handle: int, began: float) -> None:
        if handle not in self.busy:
            self._drop(next(c for c in self.idle if c.fileno() == handle))
            return
        connection, due = self.busy[handle]
        try:
            data = self.part.pop(handle, b"") + connection.recv(65_536)
        except OSError:
            data = b""
        if not data:
            del self.busy[handle]
            self._close(connection)
            self._count("none")
            return
        head = data.find(_END)
        if head < 0 or len(data) < head + 4 + _body_length(data, head):
            self.part[handle] = data
            return
        del self.busy[handle]
        status = data[9:12].decode()
        self._count(status)
        if status == "200":
            self.latency.append(time.perf_counter() - began - due)
            self.reasoned += b'"reasons":[' in data
            self.whole += b'"degraded":[]' in data
        if b"connection: close" in data[:head]:
            self._close(connection)
        else:
            self.idle.append(connection)

    def _drop(self, connection: socket.socket) -> None:
        self.idle.remove(connection)
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self.poll.unregister(connection.fileno())
        connection.close()
        self.open -= 1

    def _count(self, status: str) -> None:
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1

    def _figures(self, seconds: float, cpu: float) -> Result:
        result = self.result
        if self.busy:
            result.statuses["none"] = result.statuses.get("none", 0) + len(self.busy)
        for connection, _ in self.busy.values():
            connection.close()
        for connection in self.idle:
            connection.close()
        result.seconds = seconds
        result.cpu_us = cpu / max(result.sent, 1) * 1e6
        if self.latency:
            milliseconds = np.array(self.latency) * 1e3
            quantiles = np.quantile(milliseconds, (0.5, 0.99, 0.999, 1.0)).tolist()
            result.p50_ms, result.p99_ms, result.p999_ms, result.max_ms = quantiles
            result.with_reasons = self.reasoned / len(self.latency)
            result.complete = self.whole / len(self.latency)
        return result


def _body_length(data: bytes, head: int) -> int:
    at = data.find(_LENGTH, 0, head + 2)
    return int(data[at + len(_LENGTH) : data.index(b"\r", at)]) if at >= 0 else 0


def main() -> int:
    """Read a load, send it, print the figures."""
    import gc

    load = Load(**json.loads(sys.stdin.read()))
    sender = Sender(load)
    gc.freeze()
    gc.disable()
    print(json.dumps(asdict(sender.run())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
