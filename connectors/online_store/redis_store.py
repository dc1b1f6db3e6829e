"""The online store for several machines: one Redis (or Valkey) server, binary keys, pipelines.

Writes run on the server, compare versions there and never go backwards, whoever writes. A commit is
one script and so one transaction. One server with its replicas is meant, not a cluster: a commit
touches keys that a cluster would part.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from connectors.online_store.errors import (
    ConflictError,
    SnapshotError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from connectors.online_store.names import embedding_prefix, embedding_rows, meta_key
from connectors.online_store.record import Record, check_record, check_value, require_distinct
from connectors.online_store.redis_options import RedisOptions
from connectors.online_store.redis_scripts import (
    APPLY,
    answer_key,
    arguments,
    kinds_key,
    record_key,
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
from connectors.uris import without_login

READ_KEYS = 512
"""Keys per command; more would keep other clients waiting."""

SCRIPT_RECORDS = 16
"""Records per script: the server serves nobody else meanwhile."""

PIPELINE = 16
"""Scripts under way at a time."""


class RedisStore:
    """`store.OnlineStore` on a server."""

    def __init__(self, options: RedisOptions, *, read_only: bool = False) -> None:
        """Connect.

        Raises:
            StoreUnavailableError: When the server does not answer.
            StoreError: When it refuses us.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.options, self.read_only = options, read_only
        self._prefix = options.prefix.encode()
        seconds = options.timeout_ms / 1000
        try:
            # A broken connection is tried once more: every write may be repeated.
            self._client: Any = redis.Redis.from_url(
                options.url,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            )
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.place} cannot be used ({error})", "Correct the URL") from None
        try:
            with self._told():
                self._script = str(self._client.script_load(APPLY))
        except BaseException:
            self._client.close()
            raise

    @property
    def place(self) -> str:
        """The address without user and password."""
        return without_login(self.options.url)

    def read(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of many keys by one command (one for each 512)."""
        values: list[bytes | None] = []
        with self._told():
            for start in range(0, len(keys), READ_KEYS):
                part = keys[start : start + READ_KEYS]
                wanted = [record_key(self._prefix, key) for key in part]
                values += self._client.execute_command("MGET", *wanted)
        return [
            None if value is None else Record(key, value)
            for key, value in zip(keys, values, strict=True)
        ]

    def write(self, records: Iterable[Record]) -> int:
        """Put records that are newer than what is there; returns how many."""
        self._writable()
        source, applied = iter(records), 0
        while batch := list(islice(source, SCRIPT_RECORDS * PIPELINE)):
            for record in batch:
                check_value(record.value)
            parts = [
                self._arguments(batch[start : start + SCRIPT_RECORDS], {}, all_or_none=False)
                for start in range(0, len(batch), SCRIPT_RECORDS)
            ]
            applied += sum(int(answer[1]) for answer in self._run(parts))
        return applied

    def commit(self, records: Sequence[Record], answers: Mapping[int, Answer]) -> None:
        """Put records and answers by one script, all or none."""
        self._writable()
        for record in require_distinct(records):
            check_value(record.value)
        said, number = self._run([self._arguments(records, answers, all_or_none=True)])[0]
        if said == b"answered":
            raise ConflictError(
                f"event {list(answers)[number]} has been answered", "Send the answer that was kept"
            )
        if said == b"stale":
            late = records[number]
            raise ConflictError(
                f"the state of {late.kind} changed meanwhile (part {late.part})",
                "Read it again and repeat",
            )

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what was answered to each event and has not expired."""
        if not event_ids:
            return []
        with self._told():
            found: list[bytes | None] = self._client.execute_command(
                "MGET", *(answer_key(self._prefix, event_id) for event_id in event_ids)
            )
        return found

    def write_embeddings(self, model: str, kind: str, ids: Sequence[str], vectors: Vector) -> None:
        """Put a model's vectors float32 [n, d], one hash per model and kind."""
        self._writable()
        rows = embedding_rows(model, kind, ids, vectors)
        while batch := list(islice(rows, READ_KEYS)):
            with self._told():
                self._put_vectors(batch)

    def read_embeddings(
        self, model: str, entities: Sequence[tuple[str, str]]
    ) -> list[Vector | None]:
        """Return a model's vectors by (kind, id), in one round trip."""
        prefix = embedding_prefix(model)
        with self._told():
            pipeline = self._client.pipeline(transaction=False)
            for kind, entity in entities:
                pipeline.hget(self._embeddings_key(prefix, kind.encode()), entity.encode())
            rows = pipeline.execute()
        return [None if row is None else np.frombuffer(row, "<f4") for row in rows]

    def drop_embeddings(self, model: str) -> int:
        """Remove a model's vectors."""
        self._writable()
        total = 0
        with self._told():
            for key in self._scan(self._embeddings_key(embedding_prefix(model), b"*")):
                total += self._client.hlen(key)
                self._client.unlink(key)
        return total

    def get_meta(self, name: str) -> bytes | None:
        """Return a named value."""
        with self._told():
            found: bytes | None = self._client.hget(self._prefix + b":m", meta_key(name))
        return found

    def put_meta(self, name: str, value: bytes) -> None:
        """Put a named value."""
        self._writable()
        with self._told():
            self._client.hset(self._prefix + b":m", meta_key(name), value)

    def counts(self) -> dict[str, int]:
        """Return how many entities of each kind have state that has not expired."""
        head = len(self._prefix) + 3
        with self._told():
            indexes = sorted(self._client.smembers(kinds_key(self._prefix)))
            now = int(time.time() * 1000)
            found = {i[head:].decode(): int(self._client.zcount(i, now, "inf")) for i in indexes}
        return {kind: count for kind, count in found.items() if count}

    def iterate(self, kind: str = "") -> Iterator[Record]:
        """Yield all records, or those of one kind, as the server comes upon them."""
        head = len(record_key(self._prefix, b""))
        pattern = record_key(self._prefix, kind.encode() + b"\0*" if kind else b"*")
        keys = self._scan(pattern)
        while batch := list(islice(keys, READ_KEYS)):
            for record in self.read([key[head:] for key in batch]):
                if record is not None:
                    yield record

    def flush(self) -> None:
        """Do nothing: when a write reaches the disk is set in the server (appendfsync)."""

    def snapshot(self, path: Path) -> int:
        """Write the whole store to a file; every entry is whole, writes meanwhile may be in it."""
        with self._told():
            return write_snapshot(path, self._entries())

    def restore(self, path: Path) -> int:
        """Read a snapshot into this store, which must be empty."""
        self._writable()
        if self.counts():
            raise SnapshotError(f"{self.place} is not empty", "Restore with another prefix")
        entries, count = read_snapshot(path), 0
        while batch := list(islice(entries, READ_KEYS)):
            self._restore(batch)
            count += len(batch)
        return count

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _arguments(
        self, records: Sequence[Record], answers: Mapping[int, Answer], *, all_or_none: bool
    ) -> tuple[list[bytes], list[bytes]]:
        return arguments(
            records,
            answers,
            prefix=self._prefix,
            all_or_none=all_or_none,
            expire_ms=self.options.expire_s * 1000,
            now_ms=int(time.time() * 1000),
        )

    def _run(self, parts: Sequence[tuple[list[bytes], list[bytes]]]) -> list[Any]:
        """Run the script once per part, all sent at once; loads it again after a restart."""
        import redis

        def send() -> list[Any]:
            pipeline = self._client.pipeline(transaction=False)
            for keys, given in parts:
                pipeline.execute_command("EVALSHA", self._script, len(keys), *keys, *given)
            done: list[Any] = pipeline.execute()
            return done

        with self._told():
            try:
                return send()
            except redis.exceptions.NoScriptError:
                self._client.script_load(APPLY)
                return send()

    def _put_vectors(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, row in rows:
            kind, _, entity = key[8:].partition(b"\0")
            pipeline.hset(self._embeddings_key(key[:8], kind), entity, row)
        pipeline.execute()

    def _embeddings_key(self, prefix: bytes, kind: bytes) -> bytes:
        return self._prefix + b":e:" + prefix.hex().encode() + b":" + kind

    def _scan(self, pattern: bytes) -> Iterator[bytes]:
        with self._told():
            yield from self._client.scan_iter(match=pattern, count=READ_KEYS)

    def _entries(self) -> Iterator[Entry]:
        for record in self.iterate():
            yield Entry(RECORDS, *record)
        for name, value in self._client.hgetall(self._prefix + b":m").items():
            yield Entry(META, name, value)
        for key in self._scan(self._prefix + b":e:*"):
            digest, kind = key[len(self._prefix) + 3 :].split(b":", 1)
            for entity, row in self._client.hscan_iter(key, count=READ_KEYS):
                yield Entry(EMBEDDINGS, bytes.fromhex(digest.decode()) + kind + b"\0" + entity, row)
        for key in self._scan(self._prefix + b":a:*"):
            content, until = self._client.pipeline().get(key).pexpiretime(key).execute()
            if content is not None:
                event_id = int(key.rsplit(b":", 1)[1])
                yield Entry(ANSWERS, EXPIRY.pack(event_id), EXPIRY.pack(until) + content)

    def _restore(self, entries: Sequence[Entry]) -> None:
        records = [check_record(e.key, e.value) for e in entries if e.table == RECORDS]
        self.write(records)
        with self._told():
            self._put_vectors([(e.key, e.value) for e in entries if e.table == EMBEDDINGS])
            pipeline = self._client.pipeline(transaction=False)
            for entry in entries:
                if entry.table == META:
                    pipeline.hset(self._prefix + b":m", entry.key, entry.value)
                elif entry.table == ANSWERS:
                    key = answer_key(self._prefix, EXPIRY.unpack(entry.key)[0])
                    until = max(EXPIRY.unpack_from(entry.value)[0], 1)
                    pipeline.set(key, entry.value[EXPIRY.size :], pxat=until)
                elif entry.table not in {RECORDS, EMBEDDINGS}:
                    raise SnapshotError(f"table {entry.table} is unknown", "Update Penstock")
            pipeline.execute()

    def _writable(self) -> None:
        if self.read_only:
            raise StoreReadOnlyError(f"{self.place} was opened for reading", "Open it for writing")

    @contextmanager
    def _told(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.exceptions.OutOfMemoryError as error:
            raise StoreFullError(
                f"{self.place} has no memory left",
                "Raise maxmemory of the server, or let state expire (option expire_s)",
            ) from error
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            reason = without_login(str(error))
            raise StoreError(f"{self.place} refuses us ({reason})", "Correct the login") from None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnavailableError(
                f"{self.place} does not answer ({without_login(str(error))})",
                "Start the server, or raise the option timeout_ms",
            ) from error
        except redis.RedisError as error:
            raise StoreError(f"{self.place}: {without_login(str(error))}", "See its log") from error
