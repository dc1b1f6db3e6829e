"""A file of payments divided into the past and now, and the payments of now sent to an API."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from infra.errors import ServiceError
from infra.settings import HOST

if TYPE_CHECKING:
    from connectors.flink.history import History
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

HISTORY_DAYS = 45
"""Longest window and label delay together are 37 days."""

DAY_MS = 86_400_000
NEAR_S = 0.008
ATTEMPTS = 5
MOST_WAIT_S = 2.0
"""Longest wait before a payment is sent again, whatever the API asks for."""


@dataclass(frozen=True, slots=True)
class LiveBank:
    """A file divided into the past and now.

    Attributes:
        past: Messages of the past, with the labels known before now ends.
        history: The past as the batch has it.
        live: Payments of now.
    """

    past: History
    history: Transactions
    live: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said to a payment.

    Attributes:
        payment: The payment.
        content: The answer.
        took: Seconds until it was there.
        at: When that was, on the clock of ``time.perf_counter``.
    """

    payment: dict[str, Any]
    content: dict[str, Any]
    took: float
    at: float


def divided(data: Path, config: DatasetConfig, payments: int) -> LiveBank:
    """Read a file whose rows are all good; its last payments are those of now.

    Raises:
        ServiceError: Some rows are not, or there are too few.
    """
    from connectors.files import read_table
    from connectors.flink.history import History, read_history
    from tasks.fraud.ingest.checks import check

    tx = check(read_table(data), config, str(data)).transactions
    whole = read_history(data, config)
    times, first = whole.times, len(whole.times) - payments
    if len(tx) != len(times) or first < 1:
        raise ServiceError(
            f"{data} has {len(times)} rows, {len(tx)} of them usable",
            f"Name a file of more than {payments} rows without faults",
        )
    begins = int(times.searchsorted(times[first] - HISTORY_DAYS * DAY_MS))
    known = slice(
        int(whole.known.searchsorted(times[begins] + config.delay_ms)),
        int(whole.known.searchsorted(min(times[-1], times[first - 1] + config.delay_ms), "right")),
    )
    past = History(
        config,
        whole.transactions.slice(begins, first - begins),
        times[begins:first],
        whole.labels.slice(known.start, known.stop - known.start),
        whole.known[known],
    )
    live = whole.transactions.slice(first).to_pylist()
    return LiveBank(past, tx.take(slice(begins, first)), live)


def _ask(link: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the answer to a payment; one that a busy API turns away is sent again when it says."""
    for attempts_left in reversed(range(ATTEMPTS)):
        link.request("POST", "/v1/score", body, headers)
        response = link.getresponse()
        content = response.read()
        if response.status == 200:
            return content
        if response.status != 503 or not attempts_left:
            break
        time.sleep(min(float(response.getheader("Retry-After") or 1.0), MOST_WAIT_S))
    raise ServiceError(f"the API answered {response.status}: {content[:200]!r}")


def send(
    port: int,
    token: str,
    config: DatasetConfig,
    rows: list[dict[str, Any]],
    rate: float,
    between: Callable[[], None],
) -> tuple[dict[str, Answer], float]:
    """Send payments one by one at a rate; returns the answers by event id, and the rate reached.

    Args:
        port: Loopback port of the API.
        token: With scope ``score``.
        config: Names the column of ids.
        rows: The payments.
        rate: How many a second.
        between: Called while there is time.

    Raises:
        ServiceError: The API refused one; quotes its answer.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    link = http.client.HTTPConnection(HOST, port, timeout=10)
    answers: dict[str, Answer] = {}
    began = time.perf_counter()
    try:
        for number, row in enumerate(rows):
            due = began + number / rate
            while (wait := due - time.perf_counter()) > 0:
                if wait > NEAR_S:
                    between()
                time.sleep(max(0.0, min(due - time.perf_counter(), 0.05)))
            body, asked = orjson.dumps(row), time.perf_counter()
            content, now = _ask(link, body, headers), time.perf_counter()
            event = str(row[config.event_id or "event_id"])
            answers[event] = Answer(row, orjson.loads(content), now - asked, now)
    finally:
        link.close()
    return answers, len(rows) / (time.perf_counter() - began)
