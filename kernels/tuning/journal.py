"""An append-only file of JSON lines that several processes write and read.

Each line is one event, written in one call under a lock of the file, which the system lets go when
a process dies. So a killed process leaves at most one torn line, which the next one cuts off, and
no lock behind. (Optuna's journal takes its lock by a link that outlives its owner for 30 seconds,
and cannot be read any more once a line follows a torn one.)
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Event = dict[str, Any]


class JournalError(ValueError):
    """A journal that cannot be read, or belongs to something else; the message says which line."""


class Journal:
    """One file of events.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, made when missing.

        Raises:
            JournalError: When it cannot be made or opened.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"journal {path} cannot be opened: {error.strerror}") from error
        self._read = 0
        self._lines = 0

    @contextmanager
    def locked(self) -> Iterator[list[Event]]:
        """Keep other processes out; gives the events that were added since the last time.

        Raises:
            JournalError: When a line is no event.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield self._news()
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def append(self, event: Event) -> None:
        """Add an event; only inside of `locked`.

        Raises:
            JournalError: When the disk is full or refuses; nothing of the event stays then.
        """
        line = json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            written, why = os.pwrite(self._file, line, self._read), "no room for a whole line"
        except OSError as error:
            written, why = 0, str(error.strerror)
        if written < len(line):
            os.ftruncate(self._file, self._read)
            raise JournalError(f"journal {self.path} was not written: {why}; free the disk")
        self._read += len(line)
        self._lines += 1

    def close(self) -> None:
        """Close the file; again is as good."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _news(self) -> list[Event]:
        size = os.fstat(self._file).st_size
        text = os.pread(self._file, size - self._read, self._read) if size > self._read else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            logger.warning("journal %s: a torn line was cut off", self.path)
            os.ftruncate(self._file, self._read + len(whole))
        events = []
        for line in whole.splitlines():
            self._lines += 1
            try:
                event = json.loads(line)
            except ValueError as error:
                raise self._damage(str(error)) from error
            if not isinstance(event, dict) or "event" not in event:
                raise self._damage("no event")
            events.append(event)
        self._read += len(whole)
        return events

    def _damage(self, why: str) -> JournalError:
        return JournalError(
            f"line {self._lines} of journal {self.path} cannot be read ({why}); "
            "delete the lines from there on to go on with what came before"
        )
