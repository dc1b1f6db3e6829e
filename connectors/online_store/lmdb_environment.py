"""One LMDB environment: opened by one writer or many readers, growing as it must.

LMDB maps its file into memory. The map may only be changed while this process has no transaction,
so short reads, long reads and writes pass a gate. Files grow with what is in them; the map is
address space and nothing more.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from connectors.online_store.errors import (
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
)
from connectors.online_store.lmdb_errors import told

if TYPE_CHECKING:
    import lmdb
    from lmdb import Transaction, _Database

    from connectors.online_store.lmdb_options import LmdbOptions

logger = logging.getLogger(__name__)
T = TypeVar("T")

MIB = 2**20
SYNC_SECONDS = 1.0
READER_CHECK_SECONDS = 10.0
LONG_READ_SECONDS = 60.0
"""How long growing waits for snapshots and iterations of this process."""


class LmdbEnvironment:
    """An open environment with its tables; reads and writes go through it."""

    def __init__(
        self, folder: Path, options: LmdbOptions, tables: tuple[str, ...], *, read_only: bool
    ) -> None:
        """Open it; the writer creates what is missing.

        Raises:
            StoreError: When it cannot be opened; the kind of error says why.
        """
        self.folder, self.options, self.read_only = folder, options, read_only
        self._gate = threading.Condition(threading.Lock())
        self._writing = threading.Lock()
        self._long_reads = 0
        self._closed = threading.Event()
        self._unsynced = False
        self._sync_failure: StoreError | None = None
        self._syncer: threading.Thread | None = None
        self._lock: IO[str] | None = None if read_only else _writer_lock(folder)
        try:
            self._raw = self._open()
            self.tables = self._open_tables(tables)
        except BaseException:
            self._release_lock()
            raise
        if not read_only:
            self._syncer = threading.Thread(target=self._sync_often, name="lmdb-sync", daemon=True)
            self._syncer.start()

    def _open(self) -> lmdb.Environment:
        import lmdb

        if self.read_only and not (self.folder / "data.mdb").is_file():
            raise StoreNotFoundError(
                f"no online store in {self.folder}", "Start the process that writes it first"
            )
        options = self.options
        with self._translated():
            return lmdb.open(
                str(self.folder),
                # 0: the size the file itself tells.
                map_size=0 if self.read_only else options.map_mib * MIB,
                readonly=self.read_only,
                create=not self.read_only,
                mode=0o600,
                # Commits are flushed with their data; the page that makes the newest one count
                # follows within a second, or with the next commit.
                metasync=False,
                sync=options.sync == "commit",
                readahead=False,  # reads are scattered
                max_readers=options.readers,
                max_dbs=16,
                max_spare_txns=16,
            )

    def _open_tables(self, names: tuple[str, ...]) -> dict[str, _Database]:
        with self._translated():
            try:
                return {
                    name: self._raw.open_db(name.encode(), create=not self.read_only)
                    for name in names
                }
            except StoreError:
                raise
            except BaseException:
                self._raw.close()
                raise

    def read(self, look: Callable[[Transaction[bytes]], T]) -> T:
        """Return what ``look`` makes of one consistent moment; it must be brief."""
        import lmdb

        while True:
            try:
                with self._gate, self._raw.begin() as transaction:
                    return look(transaction)
            except lmdb.MapResizedError:
                self._adopt()
            except lmdb.Error as error:
                raise told(error, self.folder, self.options.readers) from error

    @contextmanager
    def long_read(self) -> Iterator[Transaction[bytes]]:
        """A consistent moment for as long as the block lasts; the file cannot shrink meanwhile."""
        import lmdb

        while True:
            try:
                with self._gate:
                    transaction = self._raw.begin()
                    self._long_reads += 1
                break
            except lmdb.MapResizedError:
                self._adopt()
            except lmdb.Error as error:
                raise told(error, self.folder, self.options.readers) from error
        try:
            with self._translated():
                yield transaction
        finally:
            transaction.abort()
            with self._gate:
                self._long_reads -= 1
                self._gate.notify_all()

    def update(self, change: Callable[[Transaction[memoryview]], T]) -> T:
        """Run ``change`` in a write transaction, and again after the map had to grow.

        Raises:
            StoreReadOnlyError: When the store was opened for reading.
            StoreFullError: When there is no room; nothing was written.
        """
        import lmdb

        if self.read_only:
            raise StoreReadOnlyError(
                f"{self.folder} was opened for reading", "Write through the process that owns it"
            )
        failure, self._sync_failure = self._sync_failure, None
        if failure is not None:
            raise failure
        with self._writing:
            while True:
                try:
                    with self._raw.begin(write=True, buffers=True) as transaction:
                        result = change(transaction)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self._adopt()
                except lmdb.Error as error:
                    raise told(error, self.folder, self.options.readers) from error
                else:
                    self._unsynced = True
                    return result

    def flush(self) -> None:
        """Bring everything committed to the disk."""
        if not self.read_only:
            with self._translated():
                self._unsynced = False
                self._raw.sync(True)  # noqa: FBT003 - the parameter is positional

    def close(self) -> None:
        """Flush and close; later calls do nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._writing:
            try:
                self.flush()
            finally:
                with self._gate:
                    self._raw.close()
                self._release_lock()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import lmdb

        try:
            yield
        except lmdb.Error as error:
            raise told(error, self.folder, self.options.readers) from error

    def _grow(self) -> None:
        size = int(self._raw.info()["map_size"])
        wanted = min(2 * size, self.options.limit_mib * MIB)
        if wanted <= size:
            raise StoreFullError(
                f"the online store in {self.folder} has reached its limit of {size // MIB} MiB",
                "Raise the option limit_mib",
            )
        self._resize(wanted)
        logger.info("%s: map grown to %d MiB", self.folder, wanted // MIB)

    def _adopt(self) -> None:
        """Take over the size that another process gave the file."""
        self._resize(0)

    def _resize(self, size: int) -> None:
        with self._gate:
            if not self._gate.wait_for(lambda: self._long_reads == 0, LONG_READ_SECONDS):
                raise StoreBusyError(
                    f"{self.folder} must grow, but a snapshot or an iteration is at work",
                    "Take snapshots in another process",
                )
            with self._translated():
                self._raw.set_mapsize(size)

    def _sync_often(self) -> None:
        """Once a second flush what is new; now and then forget readers that were killed.

        A killed reader would keep the pages it saw from being used again for ever.
        """
        import lmdb

        next_check = 0.0
        while not self._closed.wait(SYNC_SECONDS):
            try:
                if self._unsynced:
                    self.flush()
                if time.monotonic() >= next_check:
                    next_check = time.monotonic() + READER_CHECK_SECONDS
                    self._raw.reader_check()
            except (StoreError, lmdb.Error) as error:
                logger.error("%s: %s", self.folder, error)  # noqa: TRY400 - raised by a write
                if isinstance(error, StoreError):
                    self._unsynced, self._sync_failure = True, error

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def _writer_lock(folder: Path) -> IO[str]:
    """Take the lock of the one writer; the kernel gives it back however this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = (folder / "writer.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror})", "Choose another") from (
            error
        )
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read(32).strip()
        handle.close()
        raise StoreBusyError(
            f"process {holder or 'unknown'} writes the online store in {folder}",
            "Stop it, or open the store for reading",
        ) from error
    with suppress(OSError):  # a full disk: the number serves the message above alone
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
    return handle
