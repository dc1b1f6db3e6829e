"""What every online store can do, and how one is opened by its URL.

A store maps the keys of the contract to its values (``record.py``) and moves bytes: what a block
means is known to those who read it (``view.py``). Beside the state it keeps entity embeddings, the
answers that the API has given, and a few named values such as the last published model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.errors import StoreError
from connectors.online_store.record import Record
from connectors.uris import without_login

STORE_VARIABLE = "PENSTOCK_STORE_URL"
"""Variable that holds the URL of the store; it may hold a password and is never logged."""

Vector = NDArray[np.float32]


class Answer(NamedTuple):
    """What was answered to an event.

    Attributes:
        content: The answer as it was sent.
        expires_at: Epoch milliseconds from which on the event may be answered anew.
    """

    content: bytes
    expires_at: int


class OnlineStore(Protocol):
    """State of entities by (kind, id, part), read by many and written by few.

    Every method raises `StoreError` or one of its kinds, each naming the fix.
    """

    @property
    def place(self) -> str:
        """Where the store is, as it may be shown: without a login."""
        ...

    def read(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of many keys in one go, in their order; None where there is none.

        Each record is whole, and in LMDB all come from one moment.
        """
        ...

    def write(self, records: Iterable[Record]) -> int:
        """Put records whose version is higher than the one in the store; skip the others.

        Any order and any repetition of the same records leaves the same store.

        Returns:
            How many records were applied.
        """
        ...

    def commit(self, records: Sequence[Record], answers: Mapping[int, Answer]) -> None:
        """Put records and the answers of the events they count in one transaction: all or none.

        Raises:
            ConflictError: When one of the events is answered already, or the store has a version
                as high as that of a record: read again and repeat. Nothing was written; only
                where a connection broke and the commit was sent twice may it be our own.
        """
        ...

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what was answered to each event, None where nothing was or it has expired."""
        ...

    def write_embeddings(self, model: str, kind: str, ids: Sequence[str], vectors: Vector) -> None:
        """Put vectors float32 [n, d] of entities, as the model of a digest sees them."""
        ...

    def read_embeddings(
        self, model: str, entities: Sequence[tuple[str, str]]
    ) -> list[Vector | None]:
        """Return a model's vectors float32 [d] by (kind, id), None for entities without one."""
        ...

    def drop_embeddings(self, model: str) -> int:
        """Remove the vectors of a model that serves no more; returns how many there were."""
        ...

    def get_meta(self, name: str) -> bytes | None:
        """Return a named value, for example the control in force."""
        ...

    def put_meta(self, name: str, value: bytes) -> None:
        """Put a named value; the last one stays."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many entities of each kind have state."""
        ...

    def iterate(self, kind: str = "") -> Iterator[Record]:
        """Yield all records, of one kind if it is named.

        LMDB yields them in the order of their keys, as they were at the first one. Redis yields
        them in no order, each whole, one perhaps twice; writes meanwhile may be among them.
        Do not write to the same store object before the end.
        """
        ...

    def flush(self) -> None:
        """Return once everything written will survive what the store can survive."""
        ...

    def snapshot(self, path: Path) -> int:
        """Write everything to one file that any store restores; returns the entries written."""
        ...

    def restore(self, path: Path) -> int:
        """Read a snapshot into this store, which must be empty; returns the entries read."""
        ...

    def close(self) -> None:
        """Let go of files and connections; calling it again does nothing."""
        ...

    def __enter__(self) -> Self:
        """Use the store in a ``with`` block."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        ...


def open_store(url: str = "", *, read_only: bool = False) -> OnlineStore:
    """Open a store: ``lmdb:///folder`` or ``redis://host:port/database``.

    Options stand behind a question mark. LMDB: ``sync`` (commit or second), ``map_mib`` (address
    space to begin with), ``limit_mib`` (size it may grow to), ``readers`` (most reading threads).
    Redis: ``prefix`` (of all keys, default penstock), ``timeout_ms``, ``expire_s`` (seconds after
    which untouched state goes; 0, the default, keeps it), and what redis-py knows.

    Args:
        url: Address; empty takes the variable PENSTOCK_STORE_URL.
        read_only: Refuse to write. LMDB needs it for every process but the one that writes.

    Raises:
        StoreError: On an address that cannot be used.
    """
    address = url or os.environ.get(STORE_VARIABLE, "")
    if not address:
        raise StoreError("no online store was named", f"Set {STORE_VARIABLE} to lmdb:///folder")
    scheme = urlsplit(address).scheme
    if scheme == "lmdb":
        from connectors.online_store.lmdb_options import LmdbOptions
        from connectors.online_store.lmdb_store import LmdbStore

        folder, options = _lmdb_address(address)
        return LmdbStore(folder, LmdbOptions.from_texts(options), read_only=read_only)
    if scheme in {"redis", "rediss", "unix"}:
        from connectors.online_store.redis_options import RedisOptions
        from connectors.online_store.redis_store import RedisStore

        return RedisStore(RedisOptions.from_url(address), read_only=read_only)
    raise StoreError(
        f"{without_login(address)} names no kind of online store",
        "Write lmdb:///absolute/folder or redis://host:6379/0",
    )


def _lmdb_address(url: str) -> tuple[Path, dict[str, str]]:
    parts = urlsplit(url)
    if parts.netloc or not parts.path.strip("/"):
        raise StoreError(
            f"{url} names no folder", "Write three slashes and an absolute path: lmdb:///folder"
        )
    return Path(unquote(parts.path)), dict(parse_qsl(parts.query, keep_blank_values=True))
