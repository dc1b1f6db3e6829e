"""Steady traffic for the chaos run: most of it straight to Kafka, some of it through the API."""

from __future__ import annotations

import http.client
import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from infra.services.state import load_state
from infra.settings import HOST, Settings
from tasks.fraud.simulate import CardsConfig
from tests.benchmarks._kafka import LABEL_DELAY_S, bank_rows

RATE = 200
"""Transactions per second."""

BANK = CardsConfig(cards=1_000, terminals=500, days=180, seed=11)
"""A second of traffic is a tenth of a day: a label follows its transaction after some 70 s."""

PRELOAD_S = 8 * 86_400
"""What is sent at once to begin with, so that labels flow from the first second on."""

OUT_OF_ORDER_S = 17_280
"""Event time of two seconds of traffic: by so much an event of the API may come late."""

HOT_SHARE, HOT = 0.3, "hot"
THROUGH_API, REPEATED, POISON = 10, 101, 103
"""One row in so many goes through the API, is sent twice, is followed by bytes that are no row."""

IN_FLIGHT = 100
"""Most undelivered messages: a broker that is away holds the traffic back."""

CLOSING_S = 86_400
CALL_SECONDS = 5.0


def hot_rows() -> Iterator[dict[str, Any]]:
    """Yield the bank's payments, three in ten of them by one and the same customer."""
    rng = random.Random(BANK.seed)
    for row in bank_rows(BANK):
        hot = rng.random() < HOT_SHARE
        yield {**row, "customer": HOT if hot else str(row["customer"])}


def payment_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a payment when it is made."""
    return {k: v for k, v in row.items() if k not in ("fraud", "scenario")}


class Api:
    """A client that calls again until it is answered.

    Attributes:
        answered: Event id -> what was answered first, and when.
        refused: Calls that were not answered with 200.
    """

    def __init__(self, settings: Settings, secret: Path) -> None:
        self._settings = settings
        self._headers = {
            "Authorization": f"Bearer {secret.read_text(encoding='utf-8').strip()}",
            "Content-Type": "application/json",
        }
        self._link: http.client.HTTPConnection | None = None
        self.answered: dict[str, tuple[dict[str, Any], float]] = {}
        self.refused = 0

    def score(self, row: dict[str, Any], stop: threading.Event) -> bool:
        """Send a transaction until it is accepted; False when stopped before."""
        while not stop.is_set():
            answer = self.call(row)
            if answer is not None:
                self.answered.setdefault(str(row["tx_id"]), (answer, time.monotonic()))
                return True
            self.refused += 1
            time.sleep(0.1)
        return False

    def call(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Send a transaction once; None where it was not accepted."""
        try:
            if self._link is None:
                state = load_state(self._settings, "api")
                if state is None:
                    return None
                self._link = http.client.HTTPConnection(HOST, state.port, timeout=CALL_SECONDS)
            self._link.request("POST", "/v1/score", orjson.dumps(row), self._headers)
            answer = self._link.getresponse()
            content = answer.read()
            if answer.status == 200:
                return dict(orjson.loads(content))
        except (OSError, http.client.HTTPException):
            if self._link is not None:
                self._link.close()
            self._link = None
        return None


class Traffic(threading.Thread):
    """Sends a bank's payments in order of time, and each label when it is known.

    Attributes:
        rows: What was sent, in order; not closing rows, repetitions and poison.
        api: Where one row in ten goes.
        sent: Event id -> moment at which it was sent.
        repeated: Event ids sent twice.
        poison: Messages that are no transactions.
        failure: What ended the thread before its time.
    """

    def __init__(self, servers: str, stream: str, partitions: int, api: Api) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Producer

        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "log_level": 0,
            }
        )
        self._stream, self._partitions, self.api = stream, partitions, api
        self._waiting: deque[dict[str, Any]] = deque()
        self.rows: list[dict[str, Any]] = []
        self.sent: dict[str, float] = {}
        self.repeated: list[str] = []
        self.poison = 0
        self.preloaded = threading.Event()
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Send until stopped, then one event per partition that is far later."""
        try:
            self._run()
        except BaseException as error:
            self.failure = error
            raise

    def _run(self) -> None:
        paced_from, began = 0, 0.0
        for number, row in enumerate(hot_rows()):
            if self.stop.is_set():
                break
            if row["t"] < PRELOAD_S:
                self._one(row, number, through_api=False)
                continue
            if not began:
                paced_from, began = number, time.monotonic()
                self.preloaded.set()
            # What an outage held up is not caught up with: the rate is a limit.
            behind = time.monotonic() - began - (number - paced_from) / RATE
            if behind > 0.5:
                began += behind
            elif behind < 0:
                self._producer.poll(0)
                time.sleep(-behind)
            self._one(row, number, through_api=number % THROUGH_API == 0)
        else:
            raise RuntimeError("the bank has no more payments: give it more days")
        self._close()

    def _one(self, row: dict[str, Any], number: int, *, through_api: bool) -> None:
        payment = payment_of(row)
        while self._waiting and self._waiting[0]["t"] + LABEL_DELAY_S <= row["t"]:
            self._send("labels", self._waiting.popleft())
        if not through_api:
            self._send("transactions", payment)
        elif not self.api.score(payment, self.stop):
            return
        self.rows.append(row)
        self._waiting.append({k: v for k, v in row.items() if k != "amount_cents"})
        self.sent[str(row["tx_id"])] = time.monotonic()
        if number % REPEATED == 0:
            self._send("transactions", payment)
            self.repeated.append(str(row["tx_id"]))
        if number % POISON == 0:
            self._produce("transactions", b"\xff{poison", number % self._partitions)
            self.poison += 1

    def _close(self) -> None:
        """Move the watermark past everything that counts."""
        last = self.rows[-1]["t"] + CLOSING_S
        for stream in ("transactions", "labels"):
            for partition in range(self._partitions):
                closing = {
                    "tx_id": 10**12 + partition,
                    "t": last,
                    "customer": f"closing-{partition}",
                    "terminal": "closing",
                    "amount_cents": 1,
                    "fraud": 0,
                }
                self._produce(stream, orjson.dumps(closing), partition)
        self._producer.flush(120)

    def _send(self, stream: str, row: dict[str, Any]) -> None:
        place = zlib.crc32(row["customer"].encode()) % self._partitions
        self._produce(stream, orjson.dumps(row), place)

    def _produce(self, stream: str, content: bytes, partition: int) -> None:
        while len(self._producer) >= IN_FLIGHT:
            self._producer.poll(0.05)
        self._producer.produce(f"penstock.{self._stream}.{stream}", content, partition=partition)
