"""The embedded online store: LMDB, one writing process, any number of readers, no server.

Readers see the moment at which their read began and never wait for the writer. Killing any process
at any time loses nothing that was committed; what a power loss takes is told by
``lmdb_options.LmdbOptions.sync``.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from connectors.online_store.errors import ConflictError, SnapshotError, StoreError
from connectors.online_store.lmdb_environment import LmdbEnvironment
from connectors.online_store.lmdb_options import LmdbOptions
from connectors.online_store.names import (
    embedding_keys,
    embedding_prefix,
    embedding_rows,
    meta_key,
)
from connectors.online_store.record import (
    VERSION_AT,
    Record,
    check_record,
    check_value,
    require_distinct,
)
from connectors.online_store.snapshot import (
    ANSWERS,
    EMBEDDINGS,
    EXPIRY,
    META,
    RECORDS,
    Entry,
    read_snapshot,
    write_snapshot,
)
from connectors.online_store.store import Answer, Vector

if TYPE_CHECKING:
    from lmdb import Transaction

TABLES = ("records", "entities", "counts", "embeddings", "meta", "answers", "expiry")
_TABLE_NAMES = {RECORDS: "records", EMBEDDINGS: "embeddings", META: "meta", ANSWERS: "answers"}
BATCH = 2_000
"""Records per transaction when there are many."""

FORMAT = b"1"
_FORMAT_KEY = b"\0format"
_ID = struct.Struct("<q")
_DUE = struct.Struct(">Qq")
_COUNT = struct.Struct("<Q")


class LmdbStore:
    """`store.OnlineStore` in a folder."""

    def __init__(
        self, folder: Path, options: LmdbOptions | None = None, *, read_only: bool = False
    ) -> None:
        """Open the folder, as its one writer or for reading.

        Raises:
            StoreNotFoundError: When it is to be read and nobody has written it yet.
            StoreBusyError: When it is to be written and another process does so.
            StoreError: When it cannot be opened or has another format.
        """
        self._environment = LmdbEnvironment(
            folder, options or LmdbOptions(), TABLES, read_only=read_only
        )
        tables = self._environment.tables
        self._records, self._meta, self._answers = (
            tables["records"],
            tables["meta"],
            tables["answers"],
        )
        try:
            self._check_format()
        except BaseException:
            self._environment.close()
            raise

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._environment.folder)

    def read(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of many keys, all from one moment."""
        table = self._records

        def look(transaction: Transaction[bytes]) -> list[bytes | None]:
            return [transaction.get(key, None, table) for key in keys]

        values = self._environment.read(look)
        return [
            None if value is None else Record(key, value)
            for key, value in zip(keys, values, strict=True)
        ]

    def write(self, records: Iterable[Record]) -> int:
        """Put records that are newer than what is there; returns how many."""
        source, applied = iter(records), 0
        while batch := list(islice(source, BATCH)):
            for record in batch:
                check_value(record.value)

            def change(transaction: Transaction[memoryview], batch: list[Record] = batch) -> int:
                added: Counter[bytes] = Counter()
                put = sum(self._put(transaction, record, added) for record in batch)
                self._count(transaction, added)
                return put

            applied += self._environment.update(change)
        return applied

    def commit(self, records: Sequence[Record], answers: Mapping[int, Answer]) -> None:
        """Put records and answers in one transaction, all or none."""
        now = int(time.time() * 1000)
        for record in require_distinct(records):
            check_value(record.value)

        def change(transaction: Transaction[memoryview]) -> None:
            self._forget(transaction, now, 2 * len(answers) + 8)
            for event_id, answer in answers.items():
                self._answer(transaction, event_id, answer, now)
            added: Counter[bytes] = Counter()
            for record in records:
                if not self._put(transaction, record, added):
                    raise ConflictError(
                        f"the state of {record.kind} changed meanwhile (part {record.part})",
                        "Read it again and repeat",
                    )
            self._count(transaction, added)

        self._environment.update(change)

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what was answered to each event and has not expired."""
        now, table = int(time.time() * 1000), self._answers

        def look(transaction: Transaction[bytes]) -> list[bytes | None]:
            return [transaction.get(_ID.pack(event_id), None, table) for event_id in event_ids]

        return [
            value[EXPIRY.size :] if value and EXPIRY.unpack_from(value)[0] > now else None
            for value in self._environment.read(look)
        ]

    def write_embeddings(self, model: str, kind: str, ids: Sequence[str], vectors: Vector) -> None:
        """Put a model's vectors float32 [n, d]."""
        table = self._environment.tables["embeddings"]
        rows = embedding_rows(model, kind, ids, vectors)
        while batch := list(islice(rows, BATCH)):

            def change(
                transaction: Transaction[memoryview], batch: list[tuple[bytes, bytes]] = batch
            ) -> None:
                for key, row in batch:
                    transaction.put(key, row, db=table)

            self._environment.update(change)

    def read_embeddings(
        self, model: str, entities: Sequence[tuple[str, str]]
    ) -> list[Vector | None]:
        """Return a model's vectors by (kind, id)."""
        keys, table = embedding_keys(model, entities), self._environment.tables["embeddings"]

        def look(transaction: Transaction[bytes]) -> list[bytes | None]:
            return [transaction.get(key, None, table) for key in keys]

        return [
            None if row is None else np.frombuffer(row, "<f4")
            for row in self._environment.read(look)
        ]

    def drop_embeddings(self, model: str) -> int:
        """Remove a model's vectors, in small transactions."""
        prefix, table = embedding_prefix(model), self._environment.tables["embeddings"]
        total = 0

        def change(transaction: Transaction[memoryview]) -> int:
            cursor, dropped = transaction.cursor(table), 0
            found = cursor.set_range(prefix)
            while found and dropped < BATCH and bytes(cursor.key()).startswith(prefix):
                found = cursor.delete()
                dropped += 1
            return dropped

        while dropped := self._environment.update(change):
            total += dropped
        return total

    def get_meta(self, name: str) -> bytes | None:
        """Return a named value."""
        table, key = self._meta, meta_key(name)
        return self._environment.read(lambda transaction: transaction.get(key, None, table))

    def put_meta(self, name: str, value: bytes) -> None:
        """Put a named value."""
        table, key = self._meta, meta_key(name)
        self._environment.update(lambda transaction: transaction.put(key, value, db=table))

    def counts(self) -> dict[str, int]:
        """Return how many entities of each kind have state."""
        table = self._environment.tables["counts"]

        def look(transaction: Transaction[bytes]) -> dict[str, int]:
            cursor = transaction.cursor(table)
            return {key.decode(): int(_COUNT.unpack(value)[0]) for key, value in cursor}

        return self._environment.read(look)

    def iterate(self, kind: str = "") -> Iterator[Record]:
        """Yield all records, or those of one kind, in the order of their keys."""
        prefix = kind.encode() + b"\0" if kind else b""
        with self._environment.long_read() as transaction:
            cursor = transaction.cursor(self._records)
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield Record(key, value)

    def flush(self) -> None:
        """Bring everything committed to the disk."""
        self._environment.flush()

    def snapshot(self, path: Path) -> int:
        """Write one moment of the whole store to a file."""
        return write_snapshot(path, self._entries())

    def restore(self, path: Path) -> int:
        """Read a snapshot into this store, which must be empty."""
        if self.counts() or any(True for _ in self.iterate()):
            raise SnapshotError(f"{self.place} is not empty", "Restore into another folder")
        entries, count = read_snapshot(path), 0
        while batch := list(islice(entries, BATCH)):

            def change(transaction: Transaction[memoryview], batch: list[Entry] = batch) -> None:
                added: Counter[bytes] = Counter()
                for entry in batch:
                    self._restore(transaction, entry, added)
                self._count(transaction, added)

            self._environment.update(change)
            count += len(batch)
        self.flush()
        return count

    def close(self) -> None:
        """Flush and close."""
        self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _put(
        self, transaction: Transaction[memoryview], record: Record, added: Counter[bytes]
    ) -> bool:
        key, value = record
        old = transaction.get(key, None, self._records)
        if old is None:
            entities = self._environment.tables["entities"]
            if transaction.put(key[:-2], b"", overwrite=False, db=entities):
                added[key[: key.index(0)]] += 1
        elif int.from_bytes(old[VERSION_AT : VERSION_AT + 8], "little") >= record.version:
            return False
        transaction.put(key, value, db=self._records)
        return True

    def _count(self, transaction: Transaction[memoryview], added: Counter[bytes]) -> None:
        table = self._environment.tables["counts"]
        for kind, number in added.items():
            old = transaction.get(kind, None, table)
            before = _COUNT.unpack(old)[0] if old is not None else 0
            transaction.put(kind, _COUNT.pack(before + number), db=table)

    def _answer(
        self, transaction: Transaction[memoryview], event_id: int, answer: Answer, now: int
    ) -> None:
        key = _ID.pack(event_id)
        expiry = self._environment.tables["expiry"]
        old = transaction.get(key, None, self._answers)
        if old is not None:
            until = EXPIRY.unpack_from(old)[0]
            if until > now:
                raise ConflictError(
                    f"event {event_id} has been answered", "Send the answer that was kept"
                )
            transaction.delete(_due(until, event_id), db=expiry)
        value = EXPIRY.pack(answer.expires_at) + answer.content
        transaction.put(key, value, db=self._answers)
        transaction.put(_due(answer.expires_at, event_id), b"", db=expiry)

    def _forget(self, transaction: Transaction[memoryview], now: int, limit: int) -> None:
        """Remove the answers that expired first, a few at a time."""
        expiry = self._environment.tables["expiry"]
        due = []
        for key in islice(transaction.cursor(expiry).iternext(values=False), limit):
            until, event_id = _DUE.unpack(key)
            if until > now:
                break
            due.append((until, event_id))
        for until, event_id in due:
            transaction.delete(_ID.pack(event_id), db=self._answers)
            transaction.delete(_due(until, event_id), db=expiry)

    def _entries(self) -> Iterator[Entry]:
        with self._environment.long_read() as transaction:
            for number, name in _TABLE_NAMES.items():
                for key, value in transaction.cursor(self._environment.tables[name]):
                    if key != _FORMAT_KEY:
                        yield Entry(number, key, value)

    def _restore(
        self, transaction: Transaction[memoryview], entry: Entry, added: Counter[bytes]
    ) -> None:
        if entry.table == RECORDS:
            self._put(transaction, check_record(entry.key, entry.value), added)
        elif entry.table == ANSWERS:
            answer = Answer(entry.value[EXPIRY.size :], EXPIRY.unpack_from(entry.value)[0])
            self._answer(transaction, _ID.unpack(entry.key)[0], answer, 0)
        elif entry.table in _TABLE_NAMES:
            table = self._environment.tables[_TABLE_NAMES[entry.table]]
            transaction.put(entry.key, entry.value, db=table)
        else:
            raise SnapshotError(f"table {entry.table} is unknown", "Update Penstock")

    def _check_format(self) -> None:
        table = self._meta
        found = self._environment.read(lambda t: t.get(_FORMAT_KEY, None, table))
        if found is None and not self._environment.read_only:
            self._environment.update(lambda t: t.put(_FORMAT_KEY, FORMAT, db=table))
        elif found != FORMAT:
            raise StoreError(
                f"the store in {self.place} has format {found!r}, this program knows {FORMAT!r}",
                "Use the version that wrote it, or seed a new store",
            )


def _due(expires_at: int, event_id: int) -> bytes:
    """Return the key under which an answer waits to be removed, in order of time."""
    return _DUE.pack(max(expires_at, 0), event_id)
