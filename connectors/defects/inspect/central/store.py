"""What edges asked and what was decided: each image once, kept over a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connectors.defects.inspect.database import Database
from connectors.defects.inspect.review_queue import QueueLimits

TABLES = """
CREATE TABLE IF NOT EXISTS reviews (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  line TEXT NOT NULL,
  name TEXT NOT NULL,
  edge TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  content BLOB,
  received TEXT NOT NULL,
  opinion TEXT,
  heat BLOB,
  decided TEXT
);
CREATE INDEX IF NOT EXISTS in_turn ON reviews (id) WHERE opinion IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Review:
    """An image to decide.

    Attributes:
        key: SHA-256 of its content.
        name: As the edge names it.
        content: Bytes of its file.
    """

    key: str
    name: str
    content: bytes


class ReviewStore:
    """The reviews of all lines."""

    def __init__(self, path: Path, limits: QueueLimits | None = None) -> None:
        """Open the file, or make it.

        Raises:
            JournalError: As `Database`.
        """
        self.limits = limits or QueueLimits()
        self._database = Database(path, TABLES)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def take(self, key: str, content: bytes, *, line: str, name: str, edge: str) -> bool:
        """Keep an image, unless it is known; False where too many wait.

        Raises:
            JournalError: It could not be kept.
        """
        with self._database.transaction() as connection:
            known = connection.execute("SELECT 1 FROM reviews WHERE key = ?", (key,)).fetchone()
            if known:
                return True
            count, size = connection.execute(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM reviews WHERE opinion IS NULL"
            ).fetchone()
            if count >= self.limits.max_images or size + len(content) > self.limits.max_bytes:
                return False
            connection.execute(
                "INSERT INTO reviews (key, line, name, edge, bytes, content, received)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, line, name, edge, len(content), content, _now()),
            )
        return True

    def next(self) -> Review | None:
        """Return the oldest undecided image."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT key, name, content FROM reviews WHERE opinion IS NULL ORDER BY id LIMIT 1"
            ).fetchone()
        return None if row is None else Review(row[0], row[1], row[2])

    def decide(self, key: str, opinion: dict[str, Any], heat: bytes) -> bool:
        """Keep the decision of an image and let go of its bytes; the first one counts.

        Returns:
            False where it was decided before.
        """
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE reviews SET opinion = ?, heat = ?, decided = ?, content = NULL"
                " WHERE key = ? AND opinion IS NULL",
                (json.dumps(opinion, allow_nan=False), heat or None, _now(), key),
            )
            return changed.rowcount == 1

    def decisions(self, keys: Sequence[str]) -> tuple[dict[str, Any], list[str], list[str]]:
        """Return the decisions of some images, those that wait, and those that are not known."""
        decided: dict[str, Any] = {}
        waiting, unknown = [], []
        with self._database.reading() as connection:
            for key in keys:
                row = connection.execute(
                    "SELECT opinion FROM reviews WHERE key = ?", (key,)
                ).fetchone()
                if row is None:
                    unknown.append(key)
                elif row[0] is None:
                    waiting.append(key)
                else:
                    decided[key] = json.loads(row[0])
        return decided, waiting, unknown

    def forget(self, before: datetime) -> int:
        """Let go of what was decided before a time; an edge that still asks sends it again.

        Returns:
            Images forgotten.
        """
        with self._database.transaction() as connection:
            return connection.execute(
                "DELETE FROM reviews WHERE opinion IS NOT NULL AND decided < ?",
                (before.astimezone(UTC).isoformat(timespec="milliseconds"),),
            ).rowcount

    def heat(self, key: str) -> bytes:
        """Return the heat map of a decided image as PNG, b"" where there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT heat FROM reviews WHERE key = ?", (key,)).fetchone()
        return b"" if row is None or row[0] is None else bytes(row[0])

    def counts(self) -> dict[str, int]:
        """Return how many images wait and how many are decided."""
        with self._database.reading() as connection:
            waiting, decided = connection.execute(
                "SELECT COUNT(*) - COUNT(opinion), COUNT(opinion) FROM reviews"
            ).fetchone()
        return {"waiting": waiting, "decided": decided}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
