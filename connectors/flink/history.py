"""A table of past transactions as the messages of a stream: into files, or into topics.

Rows go as they are, faulty ones too: the stream sets them aside with their reasons. Columns that
the dataset config does not name stay behind. Each label goes once the transactions have reached the
time at which it is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from connectors.files import atomic_path, read_table
from tasks.fraud.ingest.parsing import NO_TIME, DataError, parse_times

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig

CHUNK = 50_000
"""Rows that are Python objects at a time."""

QUEUE = 100_000
NOWHEN = -(2**62)
"""Time of a row without one."""

TRANSACTIONS, LABELS = "transactions", "labels"


class Message(NamedTuple):
    """One message.

    Attributes:
        stream: ``transactions`` or ``labels``.
        key: Id of the first entity, which partitions both streams.
        content: JSON.
    """

    stream: str
    key: str
    content: bytes


@dataclass(frozen=True, slots=True)
class History:
    """Transactions and labels, each in the order in which they become known.

    Attributes:
        config: What the columns mean.
        transactions: Rows without label columns.
        times: Epoch milliseconds of each.
        labels: Rows without amount that have a label.
        known: Epoch milliseconds from which each counts.
    """

    config: DatasetConfig
    transactions: pa.Table
    times: NDArray[np.int64]
    labels: pa.Table
    known: NDArray[np.int64]

    def messages(self) -> Iterator[Message]:
        """Yield all messages in the order of their times, a label before what may know it."""
        labels = self._lines(LABELS, self.labels)
        sent = 0
        for row, message in enumerate(self._lines(TRANSACTIONS, self.transactions)):
            due = int(np.searchsorted(self.known, self.times[row], side="right"))
            for _ in range(sent, due):
                yield next(labels)
            sent = max(sent, due)
            yield message
        yield from labels

    def _lines(self, stream: str, table: pa.Table) -> Iterator[Message]:
        column = self.config.entities[0].column
        for start in range(0, table.num_rows, CHUNK):
            for row in table.slice(start, CHUNK).to_pylist():
                yield Message(stream, str(row.get(column)), orjson.dumps(row, default=str))


def read_history(path: Path, config: DatasetConfig) -> History:
    """Read a ``.parquet`` or ``.csv`` file of transactions, in any order.

    Raises:
        InputFileError: The file cannot be read.
        DataError: It lacks a column, or its time column holds no times.
    """
    ids = [entity.column for entity in config.entities]
    table = read_table(path, text_columns=config.id_columns)
    missing = [c for c in (config.time, config.amount, *ids) if c not in table.column_names]
    if missing:
        raise DataError(
            f"{path} lacks column {missing[0]!r} of the model's dataset config; it has "
            f"{', '.join(table.column_names)}"
        )
    table = table.select([c for c in table.column_names if c in config.columns])
    times = _times(table, config.time, config)
    order = np.argsort(times, kind="stable")
    table, times = table.take(order), times[order]
    of_labels = [c for c in (config.label, config.label_time) if c and c in table.column_names]
    transactions = table.drop_columns(of_labels)
    if config.label not in of_labels:
        return History(config, transactions, times, transactions.slice(0, 0), times[:0])
    known = times + config.delay_ms
    if config.label_time in of_labels:
        known = np.maximum(known, _times(table, config.label_time, config))
    has = np.flatnonzero(table[config.label].is_valid().to_numpy(zero_copy_only=False))
    has = has[np.argsort(known[has], kind="stable")]
    return History(
        config, transactions, times, table.drop_columns([config.amount]).take(has), known[has]
    )


def _times(table: pa.Table, column: str, config: DatasetConfig) -> NDArray[np.int64]:
    found = table[column].combine_chunks()
    parsed = parse_times(found, column, config.time_unit, config.origin_ms)
    bad = parsed.values == NO_TIME
    for rows in parsed.problems.values():
        bad |= rows
    return np.where(bad, NOWHEN, parsed.values)  # first of all; the stream sets it aside


def write_history(history: History, folder: Path, tell: Callable[[int], None]) -> tuple[int, int]:
    """Write a history as the folders that a replay reads; returns transactions and labels.

    Args:
        history: The history.
        folder: Gets ``transactions/history.jsonl`` and ``labels/history.jsonl``.
        tell: Called now and then with the messages written.

    Raises:
        DiskFullError: Nothing half-written stays.
    """
    counts = {TRANSACTIONS: 0, LABELS: 0}
    places = {stream: folder / stream / "history.jsonl" for stream in counts}
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(places[TRANSACTIONS]) as transactions,
        atomic_path(places[LABELS]) as labels,
        transactions.open("wb") as into_transactions,
        labels.open("wb") as into_labels,
    ):
        files = {TRANSACTIONS: into_transactions, LABELS: into_labels}
        for number, message in enumerate(history.messages(), 1):
            files[message.stream].write(message.content + b"\n")
            counts[message.stream] += 1
            if number % CHUNK == 0:
                tell(number)
    return counts[TRANSACTIONS], counts[LABELS]


def send_history(
    history: History, servers: str, prefix: str, rate: float, tell: Callable[[int], None]
) -> int:
    """Produce a history to the topics of a stream; returns the messages that were delivered.

    Args:
        history: The history.
        servers: Brokers.
        prefix: Of the topics, ``penstock.NAME``.
        rate: Transactions a second; 0: as fast as the broker takes them.
        tell: Called now and then with the messages sent.

    Raises:
        ServiceError: The broker did not take all of them.
    """
    from confluent_kafka import Producer

    from infra.errors import ServiceError

    failures: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures[1:] = [str(error)]  # the first and the last

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": 60_000,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * QUEUE,
        }
    )
    began, sent, number = time.monotonic(), 0, 0
    for number, message in enumerate(history.messages(), 1):
        if rate and message.stream == TRANSACTIONS:
            sent += 1
            while (early := began + sent / rate - time.monotonic()) > 0:
                producer.poll(min(early, 0.1))
        while len(producer) > QUEUE and not failures:
            producer.poll(0.1)
        if failures:
            break
        key = message.key.encode()
        producer.produce(f"{prefix}.{message.stream}", message.content, key, on_delivery=delivered)
        if number % 1_000 == 0:
            producer.poll(0)
            tell(number)
    left = producer.flush(60)
    if left or failures:
        raise ServiceError(
            f"{prefix}: the broker did not take all messages "
            f"({failures[0] if failures else f'{left} wait in vain'})",
            "See whether it runs, and begin with a new stream: what was sent would be counted "
            "twice, except for the newest of an entity",
        )
    return number
