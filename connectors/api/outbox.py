"""Accepted events on their way to Kafka: written to a file first, forgotten once delivered.

The answer to a request does not wait for the broker. What was accepted lies in the outbox until the
broker has acknowledged it, so neither a broker that is down nor a killed process loses an event;
what a process left is sent when the next one starts. A mark beside each file says up to where it is
delivered, so only what was on its way is sent for a second time, and the stream drops that: it
remembers the newest events of an entity, not all.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import orjson

from connectors.api.journal import JournalError, JournalFullError, last_line_end
from connectors.api.metrics import Metrics

logger = logging.getLogger(__name__)

SUFFIX, MARK = ".outbox", ".delivered"
FILE_BYTES = 4 * 2**20
"""Size from which another file is begun."""

QUIET_SECONDS = 10.0
"""How often a broker that is away is told of."""

_AT_ONCE = 500
"""Events handed to the client at a time when old ones are sent again."""


class Producer(Protocol):
    """What is used of ``confluent_kafka.Producer``."""

    def produce(
        self, topic: str, value: bytes, key: bytes, on_delivery: Callable[[Any, Any], None]
    ) -> None:
        """Send a message; raises BufferError when too many wait."""
        ...

    def poll(self, timeout: float) -> int:
        """Call back for what was delivered."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for deliveries; returns how many are left."""
        ...


class Event(NamedTuple):
    """One event of the outbox.

    Attributes:
        topic: Where it goes.
        key: What it is partitioned by.
        line: The message.
    """

    topic: str
    key: bytes
    line: bytes


@dataclass(slots=True)
class _Place:
    """Where an event ends in its file, and whether Kafka has it."""

    end: int
    delivered: bool = False


@dataclass(slots=True)
class _File:
    """A file of the outbox, and how far it is delivered.

    Attributes:
        path: Where it lies.
        size: Its bytes.
        places: Events from the first one that is not delivered on.
        until: Bytes before that event.
        marked: The same, as the mark beside the file says.
        left: Events not delivered.
        closed: Whether nothing more is written to it.
    """

    path: Path
    size: int = 0
    places: deque[_Place] = field(default_factory=deque)
    until: int = 0
    marked: int = 0
    left: int = 0
    closed: bool = False

    def add(self, size: int) -> _Place:
        """Note an event behind the others."""
        place = _Place((self.places[-1].end if self.places else self.until) + size)
        self.places.append(place)
        self.left += 1
        return place

    def deliver(self, place: _Place) -> None:
        """Note that Kafka has an event."""
        place.delivered = True
        self.left -= 1
        while self.places and self.places[0].delivered:
            self.until = self.places.popleft().end

    def mark(self) -> None:
        """Let the next process know how far this one came, by one call that a kill cannot halve."""
        if self.until == self.marked:
            return
        handle = os.open(self.path.with_suffix(MARK), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, self.until.to_bytes(8, "little"), 0)
        finally:
            os.close(handle)
        self.marked = self.until

    def remove(self) -> None:
        """Remove the file and its mark, the mark last: without it all would be sent again."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(MARK).unlink(missing_ok=True)


class Outbox:
    """Keeps and sends events.

    Attributes:
        undelivered: Events the broker has not acknowledged.
    """

    def __init__(
        self, folder: Path, producer: Producer, metrics: Metrics, *, max_bytes: int
    ) -> None:
        """Open the folder; what is in it is sent by and by.

        Args:
            folder: Made if it is not there.
            producer: Kafka client.
            metrics: Counters.
            max_bytes: Bytes of undelivered events beyond which no more are taken.
        """
        self._folder, self._producer, self._metrics = folder, producer, metrics
        self._max_bytes = max_bytes
        self._bytes = 0
        self.undelivered = 0
        self._again: deque[tuple[_File, _Place, Event]] = deque()
        self._kept: list[_File] = []
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = sorted(folder.glob(f"*{SUFFIX}"))
        self._number = max((int(path.stem) for path in left), default=0)
        for mark in folder.glob(f"*{MARK}"):  # of a file whose removal was cut short
            if not mark.with_suffix(SUFFIX).exists():
                mark.unlink()
        for path in left:
            self._read(path)
        if self.undelivered:
            logger.info("outbox: %d events of an earlier run are sent again", self.undelivered)
        self._file, self._handle = self._begin()

    def append(self, topic: str, lines: Sequence[bytes], keys: Sequence[str]) -> None:
        """Keep events and begin to send them.

        Raises:
            JournalFullError: Too many are undelivered, or the disk is full; none was taken.
            JournalError: They could not be written; none was taken.
        """
        events = [Event(topic, key.encode(), line) for line, key in zip(lines, keys, strict=True)]
        packed = [_packed(event) for event in events]
        data = b"".join(packed)
        if self._bytes + len(data) > self._max_bytes:
            raise JournalFullError(
                f"{self._bytes} bytes of events wait for Kafka, more are not taken",
                "See whether the broker answers; raise PENSTOCK_API_OUTBOX_MIB",
            )
        self._write(data)
        file = self._file
        self.undelivered += len(events)
        places = [file.add(len(each)) for each in packed]
        for place, event in zip(places, events, strict=True):
            self._send(file, place, event)
        if file.size >= FILE_BYTES:
            self._turn_over()

    def tick(self) -> None:
        """Take acknowledgements and send again what failed; call it often."""
        self._producer.poll(0)
        for _ in range(min(len(self._again), _AT_ONCE)):
            self._send(*self._again.popleft())
        self._mark()

    def close(self, seconds: float = 5.0) -> None:
        """Send what can be sent within some seconds; the rest stays for the next run."""
        deadline = time.monotonic() + seconds
        while self.undelivered and time.monotonic() < deadline:
            self.tick()
            self._producer.flush(0.05)
        self._mark()
        os.close(self._handle)
        self._file.closed = True
        self._drop(self._file)
        if self.undelivered:
            logger.warning("outbox: %d events stay for the next run", self.undelivered)

    def _send(self, file: _File, place: _Place, event: Event) -> None:
        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                self._metrics.events_out.add("failed")
                self._again.append((file, place, event))
                return
            self._metrics.events_out.add("delivered")
            self.undelivered -= 1
            file.deliver(place)
            self._drop(file)

        try:
            self._producer.produce(event.topic, event.line, event.key, on_delivery=delivered)
        except BufferError:
            self._again.append((file, place, event))
        except (
            Exception
        ):  # librdkafka refuses a message for good or ill: it is kept and tried again
            logger.exception("outbox: an event was refused by the client")
            self._metrics.events_out.add("failed")
            self._again.append((file, place, event))

    def _mark(self) -> None:
        with suppress(OSError):  # a full disk: after a kill some more would be sent again
            for file in self._kept:
                file.mark()

    def _drop(self, file: _File) -> None:
        """Remove a file whose events are all delivered."""
        if file.closed and not file.left and file in self._kept:
            self._kept.remove(file)
            file.remove()
            self._bytes -= file.size

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._handle, data)
            while written < len(data):
                written += os.write(self._handle, data[written:])
        except OSError as error:
            os.ftruncate(self._handle, self._file.size)
            raise JournalError(
                f"{self._folder}: an event could not be kept ({error.strerror})",
                "Free disk space there; events are refused until then",
            ) from error
        self._file.size += len(data)
        self._bytes += len(data)

    def _turn_over(self) -> None:
        try:
            file, handle = self._begin()
        except OSError as error:
            logger.warning("outbox: no new file can be begun (%s), the old one goes on", error)
            return
        os.close(self._handle)
        self._file.closed = True
        self._drop(self._file)
        self._file, self._handle = file, handle

    def _begin(self) -> tuple[_File, int]:
        self._number += 1
        path = self._folder / f"{self._number:012d}{SUFFIX}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        file = _File(path)
        self._kept.append(file)
        return file, handle

    def _read(self, path: Path) -> None:
        """Take over the events of an earlier run, up to the last whole line."""
        content = path.read_bytes()
        with path.open("rb") as handle:
            content = content[: last_line_end(handle.fileno(), len(content))]
        until = _marked(path, content)
        file = _File(path, len(content), until=until, marked=until, closed=True)
        self._kept.append(file)
        for packed in content[until:].splitlines(keepends=True):
            topic, key, line = orjson.loads(packed)
            event = Event(topic, key.encode(), line.encode())
            self._again.append((file, file.add(len(packed)), event))
        self.undelivered += file.left
        self._bytes += file.size
        self._drop(file)


def _marked(path: Path, content: bytes) -> int:
    """Return up to which byte a file is known to be delivered; a mark that cannot be is none."""
    try:
        until = int.from_bytes(path.with_suffix(MARK).read_bytes()[:8], "little")
    except FileNotFoundError:
        return 0
    return until if content[until - 1 : until] == b"\n" else 0


def _packed(event: Event) -> bytes:
    return orjson.dumps([event.topic, event.key.decode(), event.line.decode()]) + b"\n"


def kafka_producer(servers: str) -> Producer:
    """Return a client that keeps the order of a partition and repeats what was not acknowledged."""
    from confluent_kafka import Producer as KafkaProducer

    told = -QUIET_SECONDS

    def tell(error: Any) -> None:
        nonlocal told
        if time.monotonic() - told >= QUIET_SECONDS:
            told = time.monotonic()
            logger.warning("Kafka: %s; events wait in the outbox", error.str())

    client = KafkaProducer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
            "message.timeout.ms": 30_000,
            "client.id": "penstock-api",
            "log_level": 0,  # told by the callback, and not ten times a second
            "error_cb": tell,
        }
    )
    return cast("Producer", client)
