"""JSON lines in files that a stream can pick up: only whole files ever show.

A file grows under a hidden name, which Flink's file source skips, and is renamed when it is old or
large enough. What a killed process left behind is cut after its last whole line and released when
the journal is opened again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.errors import PenstockError

SUFFIX = ".jsonl"
_HIDDEN = "."


class JournalError(PenstockError):
    """A line could not be kept."""


class JournalFullError(JournalError):
    """No room is left for it."""


class Journal:
    """One folder of JSON lines.

    Attributes:
        folder: Where the files lie.
        lines: Lines written since it was opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_seconds: float,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        """Open the folder and release what an earlier process left.

        Args:
            folder: Made if it is not there.
            max_bytes: Size from which a file is closed.
            max_seconds: Age from which a file is closed.
            clock: Monotonic seconds.
            now_ms: Epoch milliseconds; names the files, so that they sort by age.
        """
        self.folder = folder
        self.lines = 0
        self._max_bytes, self._max_seconds = max_bytes, max_seconds
        self._clock, self._now_ms = clock, now_ms
        self._handle = -1
        self._path = folder
        self._size = 0
        self._opened = 0.0
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in sorted(folder.glob(f"{_HIDDEN}*{SUFFIX}")):
            _release_left(left)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, without their line ends, by one call: they are there when this returns.

        Raises:
            JournalFullError: No room is left; nothing of them stays.
            JournalError: They could not be written; nothing of them stays.
        """
        data = b"\n".join([*lines, b""])
        try:
            if self._handle < 0:
                self._open()
            written = os.write(self._handle, data)
            while written < len(data):  # a full disk takes a part before it refuses
                written += os.write(self._handle, data[written:])
        except OSError as error:
            self._cut()
            kind = JournalFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else JournalError
            raise kind(
                f"{self.folder}: an event could not be journaled ({error.strerror})",
                "Free disk space there; events are refused until then",
            ) from error
        self._size += len(data)
        self.lines += len(lines)
        if self._size >= self._max_bytes:
            self.rotate()

    def tick(self) -> None:
        """Close the file if it is old enough; call it now and then."""
        if self._handle >= 0 and self._clock() - self._opened >= self._max_seconds:
            self.rotate()

    def rotate(self) -> None:
        """Close the file and let it show."""
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1
        os.close(handle)
        if self._size:
            self._path.rename(_visible(self._path))
        else:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the last file."""
        self.rotate()

    def _open(self) -> None:
        self._number += 1
        name = f"{_HIDDEN}{self._now_ms():014d}-{os.getpid()}-{self._number:06d}{SUFFIX}"
        self._path = self.folder / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL
        self._handle = os.open(self._path, flags, 0o600)
        self._size, self._opened = 0, self._clock()

    def _cut(self) -> None:
        """Take back the part of a line that was written before the disk refused."""
        if self._handle >= 0:
            os.ftruncate(self._handle, self._size)


def _visible(path: Path) -> Path:
    return path.with_name(path.name.removeprefix(_HIDDEN))


def _release_left(path: Path) -> None:
    """Cut a file after its last whole line and let it show; drop it if it has none."""
    with path.open("rb+") as handle:
        end = last_line_end(handle.fileno(), path.stat().st_size)
        handle.truncate(end)
    if end:
        path.rename(_visible(path))
    else:
        path.unlink()


def last_line_end(handle: int, size: int, block: int = 65_536) -> int:
    """Return the position after the last line end, 0 if there is none."""
    at = size
    while at > 0:
        start = max(at - block, 0)
        place = os.pread(handle, at - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        at = start
    return 0
