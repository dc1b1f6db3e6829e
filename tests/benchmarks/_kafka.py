"""Topics filled with a simulated bank, and a count of what came out, for benchmarks."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.fraud.simulate import CardsConfig, simulate_cards

LABEL_DELAY_S = 7 * 86_400
QUEUE = 500_000


@dataclass(frozen=True)
class Filled:
    """What lies in the topics.

    Attributes:
        transactions: Messages of transactions.
        labels: Messages of labels.
        bytes: Bytes of the transactions.
    """

    transactions: int
    labels: int
    bytes: int


def bank_rows(bank: CardsConfig) -> Iterator[dict[str, Any]]:
    """Yield the bank's payments one by one, in order of time."""
    for batch in simulate_cards(bank):
        yield from batch.to_pylist()


def fill(servers: str, prefix: str, bank: CardsConfig, rows: int, partitions: int) -> Filled:
    """Produce the first ``rows`` payments, and each label when it becomes known.

    Both topics are partitioned by customer. A label follows in its topic once the payments have
    reached the time at which it is known, seven days later.
    """
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 50,
            "batch.size": 500_000,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * QUEUE,
        }
    )
    waiting: deque[tuple[int, bytes, int]] = deque()
    count, labels, size = 0, 0, 0

    def send(topic: str, content: bytes, partition: int) -> None:
        producer.produce(f"{prefix}.{topic}", content, partition=partition)
        if len(producer) > QUEUE:
            producer.poll(0.2)

    for row in bank_rows(bank):
        if count == rows:
            break
        partition = zlib.crc32(str(row["customer"]).encode()) % partitions
        now, fraud = row["t"], row.pop("fraud")
        content = orjson.dumps(row)
        send("transactions", content, partition)
        count, size = count + 1, size + len(content)
        label = {**row, "fraud": fraud}
        del label["amount_cents"]
        waiting.append((now + LABEL_DELAY_S, orjson.dumps(label), partition))
        while waiting and waiting[0][0] <= now:
            _, known, place = waiting.popleft()
            send("labels", known, place)
            labels += 1
    producer.flush()
    return Filled(count, labels, size)


def committed_messages(
    servers: str, topic: str, *, idle_s: float = 5.0
) -> Iterator[dict[str, Any]]:
    """Yield all committed messages of a topic."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "count",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in found])
        while messages := consumer.consume(10_000, timeout=idle_s):
            yield from (orjson.loads(m.value()) for m in messages if m.error() is None)
    finally:
        consumer.close()
