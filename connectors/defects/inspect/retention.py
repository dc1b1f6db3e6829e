"""Lets a line forget old images whose files are gone, so that its journal stops growing.

An image whose file lies in the folder is remembered, or it would be judged again. What was told of
a forgotten one stays in the sinks, and it stays counted in the report.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from connectors.api.journal import JournalError
from connectors.defects.inspect.camera import stat_text
from connectors.defects.inspect.journal import Journal

logger = logging.getLogger(__name__)

KEEP_DAYS = 30.0
MOST_DAYS = 36_500.0
EVERY_SECONDS = 3_600.0
_AT_ONCE = 500


def check_days(days: float) -> None:
    """Refuse days that no calendar has."""
    if not 0 <= days <= MOST_DAYS:
        raise ValueError(f"keep_days is {days}; give 0 for good, or at most {MOST_DAYS:,.0f}")


class Retention:
    """Forgets what is old, gone and told to everyone."""

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        consumers: Sequence[str],
        days: float = KEEP_DAYS,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Name what is kept.

        Args:
            journal: Of the line.
            folder: The inspected folder: images that still lie in it are remembered.
            consumers: Names of the sinks; what one of them has not got is remembered.
            days: For so long everything is remembered; 0 for good.
            clock: Tells the time, with its zone.
        """
        self._database = journal.database
        self._journal, self._folder, self._consumers = journal, folder, tuple(consumers)
        self._days, self._clock = days, clock
        self._next = time.monotonic()
        self._place = self._where()

    def sweep_often(self) -> None:
        """Sweep if the last time is an hour ago; a full disk puts it off, and nothing else."""
        if self._days and time.monotonic() >= self._next:
            try:
                self.sweep()
            except JournalError as error:
                logger.warning("old images are not forgotten now: %s", error)

    def sweep(self) -> int:
        """Forget what can be forgotten; returns how many images that were.

        Raises:
            JournalError: The journal could not be written.
        """
        self._next = time.monotonic() + EVERY_SECONDS
        place, self._place = self._place, self._where()
        if not self._days or place is None or place != self._place:
            return 0  # where a share was mounted or lost since, files only seem to be gone
        before = (self._clock() - timedelta(days=self._days)).isoformat(timespec="milliseconds")
        told = min(map(self._journal.cursor, self._consumers), default=0)
        count = 0
        for batch in self._old(before, told):
            gone = [seq for seq, *file in batch if self._gone(*file)]
            if self._where() != place:
                break
            with self._database.transaction() as connection:
                for seq in gone:
                    _forget(connection, seq)
            count += len(gone)
        if count:
            logger.info("%d images older than %g days are forgotten", count, self._days)
        return count

    def _where(self) -> tuple[int, int] | None:
        """Return what tells the folder from another one at its path, None where it is away."""
        try:
            found = self._folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _gone(self, name: str, stat: str) -> bool:
        """Tell whether a file is not there any more, or has made room for one that was seen.

        A file that was merely touched, or copied back, is there: it is about to be seen again.
        """
        try:
            now = (self._folder / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # a share that does not answer now has lost nothing
            return False
        here = stat_text(now)
        return stat != here and self._journal.knows(name, here)

    def _old(self, before: str, told: int) -> Iterator[list[tuple[int, str, str]]]:
        """Yield seq, name and stat of old images of which everyone knows, some at a time."""
        at = 0
        with self._database.reading() as connection:
            young = connection.execute(
                "SELECT seq FROM images WHERE time >= ? ORDER BY seq LIMIT 1", (before,)
            ).fetchone()
        bound = young and young[0]
        while True:
            with self._database.reading() as connection:
                found = connection.execute(
                    "SELECT seq, name, stat FROM images WHERE seq > ? AND (? IS NULL OR seq < ?)"
                    " AND seq NOT IN (SELECT seq FROM queue WHERE state != 'refused')"
                    " AND seq NOT IN (SELECT seq FROM events WHERE id > ?)"
                    " ORDER BY seq LIMIT ?",
                    (at, bound, bound, told, _AT_ONCE),
                ).fetchall()
            if not found:
                return
            yield found
            at = found[-1][0]


def _forget(connection: sqlite3.Connection, seq: int) -> None:
    verdict, final, refusal = connection.execute(
        "SELECT verdict, final, refusal FROM images WHERE seq = ?", (seq,)
    ).fetchone()
    connection.execute(
        "INSERT INTO forgotten VALUES (?, ?, ?, 1)"
        " ON CONFLICT (verdict, final, rule) DO UPDATE SET images = images + 1",
        (verdict, final, json.loads(refusal)["rule"] if refusal else ""),
    )
    connection.execute(
        "DELETE FROM refusals WHERE event IN (SELECT id FROM events WHERE seq = ?)", (seq,)
    )
    for table in ("queue", "events", "images"):
        connection.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608 - of these
