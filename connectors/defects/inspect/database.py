"""One SQLite file per line: what was decided and what is on its way change in one transaction.

Write-ahead log with full synchronisation: a commit that returned is on the disk, and a kill at any
moment leaves the commit before it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.api.journal import JournalError, JournalFullError

VERSION = 1
"""Of the tables; a file of another version is refused."""
BUSY_SECONDS = 30.0
WAL_BYTES = 64 * 2**20


class Database:
    """A SQLite file of one process, used from any of its threads."""

    def __init__(self, path: Path, tables: str) -> None:
        """Open it, making what is missing.

        Args:
            path: The file.
            tables: ``CREATE TABLE IF NOT EXISTS`` statements.

        Raises:
            JournalError: Another process has it, it is damaged, or it cannot be written.
        """
        self.path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path.with_suffix(".lock"))
        try:
            with self._told():
                self._prepare(tables)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that the block changes is kept, or nothing of it.

        Raises:
            JournalFullError: The disk is full.
            JournalError: It could not be written.
        """
        with self._told():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself rolls back where the disk is full
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for single statements that change nothing.

        Raises:
            JournalError: It could not be read.
        """
        with self._told():
            yield self._connection()

    def close(self) -> None:
        """Close the connections of all threads; they must not be in use any more."""
        with self._guard:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _prepare(self, tables: str) -> None:
        connection = self._connection()
        connection.execute("PRAGMA journal_mode=WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, VERSION}:
            raise JournalError(
                f"{self.path} has tables of version {version}, this one writes {VERSION}",
                "Choose another folder of results",
            )
        connection.executescript(f"BEGIN; {tables}; PRAGMA user_version={VERSION}; COMMIT")

    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            made = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            made.execute("PRAGMA synchronous=FULL")
            made.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            self._local.connection = made
            with self._guard:
                self._open.append(made)
        return made

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            said = str(error)
            if "full" in said or "disk I/O" in said:
                raise JournalFullError(
                    f"{self.path}: could not be written ({said})",
                    "Free disk space there and run it again; nothing half-written was kept",
                ) from error
            if "malformed" in said or "not a database" in said:
                fix = "Move it away with what lies beside it to start anew"
            else:
                fix = "Check that the folder can be written"
            raise JournalError(f"{self.path}: {said}", fix) from error


def _locked(path: Path) -> int:
    """Return a descriptor that keeps other processes out until it is closed, or the process ends.

    Raises:
        JournalError: When another one has it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise JournalError(
            f"{path.parent} is in use by another process",
            "Stop that one, or choose another folder of results",
        ) from error
    return handle
