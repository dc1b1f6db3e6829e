"""Snapshots: everything a store holds in one file, checked by a hash, the same for every store.

The file begins with a magic word, goes on with frames (table, size of key, size of value, key,
value), and ends with a frame of the table ``END`` whose value is the number of frames and the
SHA-256 of all bytes before. It appears under its name only when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from connectors.online_store.errors import SnapshotError, StoreFullError
from infra.files import FULL

MAGIC = b"PENSNAP\x01"
FRAME = struct.Struct("<BII")
TRAILER = struct.Struct("<Q32s")
RECORDS, EMBEDDINGS, META, ANSWERS, END = 1, 2, 3, 4, 255
EXPIRY = struct.Struct("<q")
"""Before an answer's content: when it expires, epoch milliseconds."""


class Entry(NamedTuple):
    """One entry of a snapshot.

    Attributes:
        table: ``RECORDS``, ``EMBEDDINGS``, ``META`` or ``ANSWERS``.
        key: Key within the table.
        value: Its value.
    """

    table: int
    key: bytes
    value: bytes


def write_snapshot(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries to a file that appears whole or not at all; returns how many.

    Raises:
        StoreFullError: When the disk is full.
        SnapshotError: When the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _told(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            count = _write(file, entries)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _told(path, error) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def _write(file: BinaryIO, entries: Iterable[Entry]) -> int:
    hasher, count = hashlib.sha256(MAGIC), 0
    file.write(MAGIC)
    for table, key, value in entries:
        frame = b"".join((FRAME.pack(table, len(key), len(value)), key, value))
        hasher.update(frame)
        file.write(frame)
        count += 1
    file.write(FRAME.pack(END, 0, TRAILER.size) + TRAILER.pack(count, hasher.digest()))
    return count


def read_snapshot(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file, after the whole of it was found to be as it was written.

    Raises:
        SnapshotError: When it is no snapshot, or damaged.
    """
    for _ in _entries(path):
        pass
    yield from _entries(path)


def _entries(path: Path) -> Iterator[Entry]:
    """Yield entries as they come; the end is reached only by a sound file."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise SnapshotError(f"{path} is no snapshot of an online store", "Name another")
            hasher, count = hashlib.sha256(MAGIC), 0
            while True:
                head = _exactly(file, FRAME.size, path)
                table, key_size, value_size = FRAME.unpack(head)
                body = _exactly(file, key_size + value_size, path)
                if table == END:
                    if body != TRAILER.pack(count, hasher.digest()) or file.read(1):
                        raise _damaged(path)
                    return
                hasher.update(head)
                hasher.update(body)
                count += 1
                yield Entry(table, body[:key_size], body[key_size:])
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read ({error.strerror})", "Name another") from error


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise _damaged(path)
    return content


def _damaged(path: Path) -> SnapshotError:
    return SnapshotError(f"snapshot {path} is cut or damaged", "Take an earlier one")


def _told(path: Path, error: OSError) -> SnapshotError | StoreFullError:
    if error.errno in {*FULL, errno.EFBIG}:
        return StoreFullError(f"no room left for snapshot {path}", "Free disk space")
    return SnapshotError(f"{path} cannot be written ({error.strerror})", "Choose another place")
