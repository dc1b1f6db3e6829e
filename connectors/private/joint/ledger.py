"""Which dealt batches were used: written to the disk before the first message that depends on them.

One line per use: id of the deal, first batch, number of batches, time. A line that a crash cut
short was never relied on and is removed. Keep the file with the deals and restore neither without
the other: a ledger from yesterday does not know today's use (the other party's does, and the later
of both holds).
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.private.joint.errors import DealError, UsedTriplesError


class Ledger:
    """A party's ledger. Several processes may share one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def next_batch(self, deal: str) -> int:
        """Return the first batch of a deal that was not used, nor any after it."""
        with self._locked() as descriptor:
            return max((end for _, end in self._uses(descriptor, deal)), default=0)

    def take(self, deal: str, first: int, count: int) -> None:
        """Record that batches are used from now on; on return that is on the disk.

        Raises:
            UsedTriplesError: When one of them was used before.
        """
        with self._locked() as descriptor:
            for begin, end in self._uses(descriptor, deal):
                if first < end and begin < first + count:
                    raise UsedTriplesError(
                        f"batches {max(first, begin)} to {min(first + count, end) - 1} of deal"
                        f" {deal} were used before; ask for none to take the next, or deal again"
                    )
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            os.write(descriptor, f"{deal} {first} {count} {now}\n".encode())
            os.fsync(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if new:
                _sync_folder(self._path.parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def _uses(self, descriptor: int, deal: str) -> list[tuple[int, int]]:
        """Return first batch and end of each use of a deal."""
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(descriptor, whole)
        found = []
        for number, line in enumerate(content[:whole].decode("utf-8", "replace").splitlines(), 1):
            fields = line.split(" ")
            if len(fields) != 4 or not (fields[1].isdigit() and fields[2].isdigit()):
                raise DealError(
                    f"{self._path}, line {number}, is no use of a deal; do not edit the ledger:"
                    " deal again and begin a new one"
                )
            if fields[0] == deal:
                found.append((int(fields[1]), int(fields[1]) + int(fields[2])))
        return found


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
