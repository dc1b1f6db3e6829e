"""The very bytes of a state upsert: a key and a value, as every writer and reader has them.

Key: kind, a zero byte, id, a zero byte, the part number (one byte). Value, little endian: u64 spec
digest, u64 version, i64 emitted at (ms), u32 size n of the part, u32 count p of waiting labels, n
bytes of the part, p times (label time, time, event id, label) as i64. A record keeps both as they
came; its fields are read from them on demand and nothing is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.errors import RecordError

HEADER = struct.Struct("<QQqII")
VERSION_AT = 8
"""Byte of a value at which its version stands."""

LABEL_FIELDS = ("label_time", "time", "event_id", "label")
LABEL_BYTES = 8 * len(LABEL_FIELDS)
MAX_ID_BYTES = 256
MAX_KIND_BYTES = 128
MAX_VALUE_BYTES = 16 * 2**20
"""Far above any block; a size beyond it is damage."""

EPOCH_BITS = 38
EPOCH_ZERO = datetime(2020, 1, 1, tzinfo=UTC)
_MAX_EPOCH = 2**24 - 1

Labels = NDArray[np.int64]
"""Waiting labels, int64 [p, 4], see ``LABEL_FIELDS``; sorted by (label_time, time, event_id)."""


class Record(NamedTuple):
    """One part of the state of one entity.

    Attributes:
        key: Encoded (kind, id, part number).
        value: Encoded digest, version, time, part and waiting labels.
    """

    key: bytes
    value: bytes

    @property
    def kind(self) -> str:
        """Kind of the entity."""
        return self.key[: self.key.index(0)].decode()

    @property
    def id(self) -> str:
        """Id of the entity within its kind."""
        return self.key[self.key.index(0) + 1 : -2].decode()

    @property
    def part(self) -> int:
        """Number of the part within the block."""
        return self.key[-1]

    @property
    def digest(self) -> int:
        """Digest of the spec the part was written with."""
        return int.from_bytes(self.value[:8], "little")

    @property
    def version(self) -> int:
        """Version of the part; a store keeps the highest."""
        return version_of(self.value)

    @property
    def emitted_at(self) -> int:
        """When the record was published, epoch milliseconds."""
        return int.from_bytes(self.value[16:24], "little", signed=True)

    @property
    def content(self) -> memoryview:
        """Bytes of the part."""
        size = HEADER.unpack_from(self.value)[3]
        return memoryview(self.value)[HEADER.size : HEADER.size + size]

    @property
    def labels(self) -> Labels:
        """Waiting labels, read-only int64 [p, 4]."""
        size, count = HEADER.unpack_from(self.value)[3:]
        return labels_in(self.value, size, count)

    @property
    def entity(self) -> bytes:
        """The key without the part: equal for all parts of an entity."""
        return self.key[:-2]


def encode_key(kind: str, entity: str, part: int) -> bytes:
    """Return the key of a part.

    Raises:
        RecordError: On a kind, id or part number that no key can hold.
    """
    return entity_prefix(kind, entity) + bytes((0, check_part(part)))


def entity_prefix(kind: str, entity: str) -> bytes:
    """Return the key of an entity: what the keys of all its parts begin with.

    Raises:
        RecordError: On a kind or id that no key can hold.
    """
    name, text = kind.encode(), entity.encode()
    if not name or b"\0" in name or len(name) > MAX_KIND_BYTES:
        raise RecordError(
            f"kind {kind!r} must have 1 to {MAX_KIND_BYTES} bytes, none of them zero",
            "Rename the kind in the dataset config",
        )
    if not text or len(text) > MAX_ID_BYTES:
        raise RecordError(
            f"an id of kind {kind!r} has {len(text)} bytes, allowed are 1 to {MAX_ID_BYTES}",
            "Shorten or hash such ids before they enter",
        )
    return name + b"\0" + text


def check_part(part: int) -> int:
    """Return a part number that fits its byte, or raise `RecordError`."""
    if not 0 <= part <= 255:
        raise RecordError(f"part number {part} must lie in 0..255", "Use the parts of parts_of")
    return part


def decode_key(key: bytes) -> tuple[str, str, int]:
    """Return (kind, id, part number) of a key.

    Raises:
        RecordError: When the bytes are no key.
    """
    split = key.find(b"\0")
    whole = 0 < split <= MAX_KIND_BYTES and 0 < len(key) - split - 3 <= MAX_ID_BYTES
    if not whole or key[-2] != 0:
        raise RecordError(
            f"{key[:80]!r} is no key: kind, 0, id, 0, part number", "Check the writer"
        )
    try:
        return key[:split].decode(), key[split + 1 : -2].decode(), key[-1]
    except UnicodeDecodeError as error:
        raise RecordError(f"key {key[:80]!r} is not UTF-8", "Check the writer") from error


def encode_value(
    digest: int,
    version: int,
    emitted_at: int,
    content: bytes | memoryview,
    labels: Labels | None = None,
) -> bytes:
    """Return the value of a part; ``labels`` is int64 [p, 4] in order of release."""
    waiting = b"" if labels is None or not len(labels) else labels.astype("<i8").tobytes()
    count = len(waiting) // LABEL_BYTES
    head = HEADER.pack(digest, version, emitted_at, len(content), count)
    return b"".join((head, content, waiting))


def check_value(value: bytes) -> bytes:
    """Return the value when its sizes agree.

    Raises:
        RecordError: When the bytes are no value.
    """
    if not HEADER.size <= len(value) <= MAX_VALUE_BYTES:
        raise RecordError(
            f"a value of {len(value)} bytes is no record: {HEADER.size} to {MAX_VALUE_BYTES} "
            "bytes are possible",
            "Check the writer",
        )
    size, count = HEADER.unpack_from(value)[3:]
    if len(value) != HEADER.size + size + LABEL_BYTES * count:
        raise RecordError(
            f"a value of {len(value)} bytes says it holds a part of {size} bytes and {count} "
            "waiting labels",
            "Check the writer: the message was cut or has another layout",
        )
    return value


def check_record(key: bytes, value: bytes) -> Record:
    """Return a record of bytes that came from outside.

    Raises:
        RecordError: When they are none.
    """
    decode_key(key)
    return Record(key, check_value(value))


def require_distinct(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records of a commit, none of which may occur twice.

    Raises:
        ValueError: When two have one key.
    """
    if len({record.key for record in records}) != len(records):
        raise ValueError("two records of a commit have the same key; commit the newer one alone")
    return records


def version_of(value: bytes) -> int:
    """Return the version in a value."""
    return int.from_bytes(value[VERSION_AT : VERSION_AT + 8], "little")


def labels_in(value: bytes, size: int, count: int) -> Labels:
    """Return the waiting labels behind a part of ``size`` bytes, read-only int64 [count, 4]."""
    flat = np.frombuffer(value, "<i8", 4 * count, HEADER.size + size)
    return flat.reshape(count, 4)


def make_labels(rows: Sequence[tuple[int, int, int, int]]) -> Labels:
    """Return waiting labels int64 [p, 4] in order of release."""
    table = np.array(sorted(rows), np.int64)
    return table.reshape(len(rows), 4)


def epoch_of(now_ms: int) -> int:
    """Return the epoch of an instant: minutes since 2020-01-01 UTC.

    Raises:
        ValueError: Outside of 2020 to 2051, which 24 bits cannot hold.

    >>> epoch_of(1_577_836_800_000 + 120_000)
    2
    """
    epoch = (now_ms - int(EPOCH_ZERO.timestamp() * 1000)) // 60_000
    if not 0 <= epoch <= _MAX_EPOCH:
        raise ValueError(f"epoch {epoch} must lie in 0..{_MAX_EPOCH}: set the clock right")
    return epoch


def first_version(epoch: int) -> int:
    """Return the version of a part's first change in an epoch."""
    if not 0 <= epoch <= _MAX_EPOCH:
        raise ValueError(f"epoch {epoch} must lie in 0..{_MAX_EPOCH} (minutes since 2020-01-01)")
    return (epoch << EPOCH_BITS) | 1
