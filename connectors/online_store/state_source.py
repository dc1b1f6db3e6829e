"""Where state upserts come from: what a topic and a folder have in common."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from connectors.online_store.errors import RecordError
from connectors.online_store.record import HEADER, Record, check_record
from connectors.online_store.shape import Shape
from tasks.cleaning.quarantine import Rule

VERSION = "store-writer/1"
MAX_PAYLOAD = 256 * 2**10
"""Bytes of a bad message that are kept; its hash covers all of them."""

BROKEN = Rule("broken-record", "key and value of the stream's contract", detector_version=VERSION)
UNKNOWN_KIND = Rule("unknown-kind", "a kind of the dataset config", detector_version=VERSION)
FOREIGN_SPEC = Rule(
    "foreign-spec",
    "state of the dataset config's windows, delay and roles",
    detector_version=VERSION,
)


class Message(NamedTuple):
    """One message as it came.

    Attributes:
        key: Its key.
        value: Its value; None where the source says that a key is gone.
        source: Topic and partition, or file.
        row: Offset, or position of the byte.
    """

    key: bytes
    value: bytes | None
    source: str
    row: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that cannot be used, and why.

    Attributes:
        message: The message.
        rule: What it broke.
        observed: What was found.
    """

    message: Message
    rule: Rule
    observed: str

    def to_json(self) -> bytes:
        """Return the quarantine record as the other dead letters of the stream have it."""
        message, rule = self.message, self.rule
        payload = message.key + (message.value or b"")
        return json.dumps(
            {
                "payload": base64.b64encode(payload[:MAX_PAYLOAD]).decode(),
                "source": message.source,
                "row": message.row,
                "rule": rule.name,
                "column": "",
                "observed": self.observed,
                "expected": rule.expected,
                "severity": rule.severity,
                "detector_version": rule.detector_version,
                "confidence": rule.confidence,
                "time": datetime.now(UTC).isoformat(timespec="microseconds"),
                "sha256": hashlib.sha256(payload).hexdigest(),
            }
        ).encode()


class StateSource(Protocol):
    """A stream of state upserts that is read at least once."""

    @property
    def ready(self) -> bool:
        """Whether the source can be reached."""
        ...

    def take(self) -> list[Message]:
        """Return what has come, waiting briefly for it."""
        ...

    def refuse(self, letters: Sequence[Letter]) -> None:
        """Set messages aside that cannot be used."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def commit(self) -> None:
        """Remember that everything taken so far needs no second reading."""
        ...

    def lag(self) -> int:
        """Return how much waits to be taken: messages of a topic, files of a folder."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def sort_out(
    messages: Sequence[Message], shapes: Mapping[str, Shape]
) -> tuple[list[Record], list[Letter], int]:
    """Return the records of messages, the messages that are none, and the number of tombstones.

    Args:
        messages: As they came.
        shapes: What the records of each kind must look like; empty: anything goes.
    """
    records: list[Record] = []
    letters: list[Letter] = []
    gone = 0
    for message in messages:
        if message.value is None and message.key:
            gone += 1
            continue
        try:
            record = check_record(message.key, message.value or b"")
        except RecordError as error:
            letters.append(Letter(message, BROKEN, error.what))
            continue
        rule = _broken_rule(record, shapes) if shapes else None
        if rule is None:
            records.append(record)
        else:
            observed = f"kind {record.kind}, part {record.part} of {len(record.content)} bytes"
            letters.append(Letter(message, rule, observed))
    return records, letters, gone


def _broken_rule(record: Record, shapes: Mapping[str, Shape]) -> Rule | None:
    shape = shapes.get(record.kind)
    if shape is None:
        return UNKNOWN_KIND
    digest, _, _, size, _ = HEADER.unpack_from(record.value)
    parts = shape.parts
    if digest != shape.digest or record.part >= len(parts) or size != parts[record.part].size:
        return FOREIGN_SPEC
    return None
