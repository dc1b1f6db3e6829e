"""State upserts from Kafka, read at least once: offsets are committed after the store's write.

The writer of a store reads every partition itself. Its group only keeps the offsets and nobody
joins it: a writer that was killed is replaced at once, where a group would wait for its heartbeat.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from connectors.online_store.errors import StoreError, StoreUnavailableError
from connectors.online_store.state_source import Letter, Message

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""Topic and partition."""

BATCH = 2_000
BATCH_SECONDS = 0.05
LOOK_SECONDS = 5.0
"""Between looks for new partitions."""


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How the state topic is read.

    Attributes:
        servers: Brokers, ``host:port`` separated by commas.
        dataset: Reads ``penstock.DATASET.state``; empty: the one state topic there is.
        group: Group that keeps the offsets; one per store, as each store needs all messages.
        from_beginning: Read everything once more, whatever was committed.
    """

    servers: str
    dataset: str = ""
    group: str = "penstock-store-writer"
    from_beginning: bool = False

    @property
    def pattern(self) -> str:
        """Regular expression of the topic."""
        return rf"penstock\.{re.escape(self.dataset) or '[^.]+'}\.state"


class StateTopic:
    """`state_source.StateSource` on Kafka."""

    def __init__(self, settings: TopicSettings) -> None:
        """Prepare to read; brokers and topics that are not there yet are waited for."""
        from confluent_kafka import Consumer, Producer

        self._settings = settings
        self._positions: dict[Place, int] = {}
        self._at_end: set[Place] = set()
        self._told: set[str] = set()
        self._next_look = 0.0
        self._reached = False
        common: dict[str, Any] = {
            "bootstrap.servers": settings.servers,
            "error_cb": self._on_error,
            "client.id": "penstock-store-writer",
        }
        self._consumer: Consumer = Consumer(
            {
                **common,
                "group.id": settings.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            },
            logger=logger,
        )
        self._producer: Producer = Producer({**common, "message.timeout.ms": 30_000}, logger=logger)

    @property
    def ready(self) -> bool:
        """Whether a broker has answered."""
        return self._reached

    def take(self) -> list[Message]:
        """Return up to 2,000 messages, or what came within 50 ms.

        Raises:
            StoreError: When the state of several datasets would meet in one store.
        """
        from confluent_kafka import KafkaError, KafkaException

        try:
            if time.monotonic() >= self._next_look:
                self._look()
            batch = self._consumer.consume(BATCH, BATCH_SECONDS)
        except KafkaException as error:
            self._on_error(error.args[0])
            self.wait(BATCH_SECONDS)
            return []
        taken = []
        for each in batch:
            topic, partition, offset = each.topic() or "", each.partition() or 0, each.offset() or 0
            fault, place = each.error(), (topic, partition)
            if fault is None:
                self._at_end.discard(place)
                self._positions[place] = offset + 1
                key, value = each.key() or b"", each.value()
                taken.append(Message(_raw(key) or b"", _raw(value), f"{topic}/{partition}", offset))
            elif fault.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                self._at_end.add(place)
                self._positions[place] = max(self._positions.get(place, 0), offset)
            else:
                self._on_error(fault)
        return taken

    def refuse(self, letters: Sequence[Letter]) -> None:
        """Send messages to the dead-letter topic of their dataset, and wait until they are there.

        Raises:
            StoreUnavailableError: When they were not taken; nothing is committed then.
        """
        failures: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failures.append(str(error))

        for letter in letters:
            topic = letter.message.source.rsplit("/", 1)[0].removesuffix(".state")
            self._producer.produce(f"{topic}.dead-letters", letter.to_json(), on_delivery=delivered)
        waiting = self._producer.flush(35)
        if failures or waiting:
            raise StoreUnavailableError(
                f"{len(failures) + waiting} dead letters were not taken ({failures[:1]})",
                "Make the dead-letter topic, or look at the broker",
            )

    def wait(self, seconds: float) -> None:
        """Let time pass; no group waits for us."""
        time.sleep(seconds)

    def commit(self) -> None:
        """Commit the offsets behind everything taken; a failure is told and tried again later."""
        from confluent_kafka import KafkaException, TopicPartition

        if not self._positions:
            return
        offsets = [TopicPartition(t, p, at) for (t, p), at in self._positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._on_error(error.args[0])

    def lag(self) -> int:
        """Return how many messages wait, as far as the brokers have told."""
        from confluent_kafka import TopicPartition

        total = 0
        for place, position in self._positions.items():
            if place not in self._at_end:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
                total += max(high - position, 0)
        return total

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        self._producer.flush(5)

    def _look(self) -> None:
        """Find the partitions to read; they go on where the group's offsets say.

        Raises:
            StoreError: When several datasets have a state topic and none was named.
        """
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        self._next_look = time.monotonic() + (LOOK_SECONDS if self._positions else BATCH_SECONDS)
        known = self._consumer.list_topics(timeout=1.0).topics
        self._reached = True
        topics = sorted(t for t in known if re.fullmatch(self._settings.pattern, t))
        if len(topics) > 1:
            raise StoreError(
                f"state of several datasets ({', '.join(topics)}) cannot share a store",
                "Name one by --dataset",
            )
        places = [(topic, number) for topic in topics for number in known[topic].partitions]
        new = [place for place in places if place not in self._positions]
        if not new:
            return
        start = {place: self._positions.get(place, OFFSET_BEGINNING) for place in places}
        if not self._settings.from_beginning:
            asked = [TopicPartition(*place) for place in new]
            for found in self._consumer.committed(asked, timeout=5.0):
                if found.offset >= 0:
                    start[found.topic, found.partition] = found.offset
        self._consumer.assign([TopicPartition(*place, at) for place, at in start.items()])
        self._positions = {place: max(at, 0) for place, at in start.items()}
        logger.info("%s: reading %d partitions", topics[0], len(places))

    def _on_error(self, error: Any) -> None:
        """Tell each kind of trouble once; the client goes on trying by itself."""
        text = str(error)
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            logger.warning("Kafka: %s", text)


def _raw(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
