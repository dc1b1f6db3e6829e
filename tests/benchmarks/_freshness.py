"""How soon the API sees an event that came by the stream: broker, job, store writer, API."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from connectors.kafka.topics import StreamTopics, ensure_topics
from infra.services.registry import end_service, start_service
from infra.settings import Settings
from tests.benchmarks._api_server import running_api
from tests.benchmarks._kafka import bank_rows
from tests.benchmarks.stream_e2e import BANK, specs, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.fraud.bundle import Bundle

STREAM = "fresh"
RATE = 200
"""Transactions a second, all by the stream."""

EVERY = 20
"""One in so many is of a new customer, whom the API is asked for until it knows of the event."""

POLL_S = 0.01
GIVE_UP_S = 10.0


def freshness_ms(base: Path, bundle: Bundle, seconds: float, warm_up_s: float) -> list[float]:
    """Return milliseconds from producing an event to its showing in the API, per event asked for.

    Args:
        base: Existing folder for a home.
        bundle: The model.
        seconds: Of traffic that counts.
        warm_up_s: Of traffic before it.
    """
    with tempfile.TemporaryDirectory(prefix="freshness-", dir=base) as folder:
        home = Path(folder)
        settings = Settings(home=home)  # type: ignore[call-arg]  # the others have defaults
        servers = start_service(settings, "kafka").url
        try:
            ensure_topics(servers, StreamTopics(STREAM, partitions=1).all)
            spec = specs(home, servers, bundle, STREAM, preset="latency")
            store = f"lmdb://{home}/store"
            api = {
                "model": bundle.folder,
                "mode": "stream",
                "store": store,
                "kafka": servers,
                "kafka_prefix": spec.prefix,
                "ui": "false",
            }
            with (
                submitted(home, spec),
                store_writer(home, servers, store),
                running_api(home / "api", api) as running,
            ):
                return _ask(servers, spec.prefix, running.port, seconds, warm_up_s)
        finally:
            end_service(settings, "kafka")


@contextmanager
def store_writer(home: Path, servers: str, store: str) -> Iterator[None]:
    """The writer of the store, for the length of a ``with`` block."""
    options = ("--store", store, "--kafka", servers, "--dataset", STREAM, "--port", "0")
    with (home / "writer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors.online_store.writer", *options],
            env={**os.environ, "PENSTOCK_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(servers: str, prefix: str, port: int, seconds: float, warm_up_s: float) -> list[float]:
    """Produce at a fixed rate, and ask for the events of new customers until they show."""
    import http.client

    from confluent_kafka import Producer

    from tests.benchmarks._api_server import TOKEN

    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asked: dict[str, float] = {}
    found: list[float] = []
    began = asked_at = time.perf_counter()

    def look(now: float) -> None:
        for name, sent in list(asked.items()):
            link.request(
                "GET", f"/v1/entities/customer/{name}", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            answer = link.getresponse()
            body = answer.read()
            known = answer.status == 200 and any(
                role["transactions_ever"] for role in orjson.loads(body)["roles"]
            )
            if known or now - sent > GIVE_UP_S:
                del asked[name]
                found.append((time.perf_counter() - sent) * 1e3 if known else float("inf"))

    for number, row in enumerate(bank_rows(BANK)):
        due = began + number / RATE
        if due > began + warm_up_s + seconds:
            break
        while (wait := due - time.perf_counter()) > 0:
            if time.perf_counter() - asked_at >= POLL_S:
                asked_at = time.perf_counter()
                look(asked_at)
            time.sleep(max(0.0, min(wait, POLL_S / 2)))
        payment = {k: v for k, v in row.items() if k != "fraud"}
        if number % EVERY == 0 and due > began + warm_up_s:
            payment["customer"] = f"new-{number}"
            asked[payment["customer"]] = time.perf_counter()
        content, key = orjson.dumps(payment), str(payment["customer"])
        producer.produce(f"{prefix}.transactions", content, key=key)
        producer.poll(0)
    producer.flush(10)
    deadline = time.perf_counter() + GIVE_UP_S
    while asked and time.perf_counter() < deadline:
        look(time.perf_counter())
        time.sleep(POLL_S)
    link.close()
    return found + [float("inf")] * len(asked)
