"""Doubtful images on their way to the central model: on disk, bounded, in order, at least once.

An image leaves the queue when the decision of the central model is in the journal, not when it was
sent: a central machine that lost its memory gets it again. Its key is the SHA-256 of the file, so
what arrives twice is decided once.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from connectors.defects.inspect.database import Database

QUEUE_TABLE = """
CREATE TABLE IF NOT EXISTS queue (
  seq INTEGER PRIMARY KEY REFERENCES images,
  bytes INTEGER NOT NULL,
  content BLOB,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'refused')),
  tries INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS in_turn ON queue (state, seq);
"""
PATIENCE = 5
"""Failures of the central machine over one image, after which those behind it go first."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait.

    Attributes:
        max_images: Images.
        max_bytes: Bytes of their files.
    """

    max_images: int = 10_000
    max_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.max_images < 1 or self.max_bytes < 1:
            raise ValueError(f"{self}: let at least one image of one byte wait")


@dataclass(frozen=True, slots=True)
class QueuedImage:
    """An image to send.

    Attributes:
        seq: Its number in the journal.
        name: Path within the folder.
        digest: SHA-256 of the content; the idempotency key.
        edge: What the edge said, as JSON.
        content: Bytes of the file.
    """

    seq: int
    name: str
    digest: str
    edge: str
    content: bytes


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many images wait to be sent, are sent, were given up, found no room."""

    waiting: int = 0
    sent: int = 0
    refused: int = 0
    unqueued: int = 0

    @property
    def open(self) -> int:
        """Images whose decision is still to come."""
        return self.waiting + self.sent + self.unqueued


class ReviewQueue:
    """The queue; part of the journal's file, so that both change together."""

    def __init__(self, database: Database, limits: QueueLimits) -> None:
        self.limits = limits
        self._database = database

    def put(self, connection: sqlite3.Connection, seq: int, content: bytes) -> bool:
        """Add an image within a transaction of the journal; False where there is no room."""
        count, size = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM queue WHERE content IS NOT NULL"
        ).fetchone()
        if count >= self.limits.max_images or size + len(content) > self.limits.max_bytes:
            return False
        connection.execute(
            "INSERT INTO queue (seq, bytes, content, state) VALUES (?, ?, ?, 'waiting')",
            (seq, len(content), content),
        )
        return True

    def first(self) -> QueuedImage | None:
        """Return the image whose turn it is, None where none waits."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT seq, name, digest, edge, content FROM queue JOIN images USING (seq)"
                " WHERE state = 'waiting' ORDER BY tries >= ?, seq LIMIT 1",
                (PATIENCE,),
            ).fetchone()
        if row is None:
            return None
        seq, name, digest, edge, content = row
        return QueuedImage(seq, name, digest, edge, content)

    def sent(self, seq: int) -> None:
        """Note that the central machine keeps an image."""
        self._change("UPDATE queue SET state = 'sent' WHERE seq = ?", seq)

    def failed(self, seq: int) -> None:
        """Note that the central machine failed over an image."""
        self._change("UPDATE queue SET tries = tries + 1 WHERE seq = ?", seq)

    def refuse(self, seq: int, reason: str) -> None:
        """Note that the central machine will never take an image; it stays for a person."""
        self._change(
            "UPDATE queue SET state = 'refused', content = NULL, bytes = 0, reason = ?"
            " WHERE seq = ?",
            reason[:500],
            seq,
        )

    def forgotten(self, digests: list[str]) -> None:
        """Send images again that the central machine does not know any more."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE queue SET state = 'waiting' WHERE state = 'sent'"
                " AND seq = (SELECT seq FROM images WHERE digest = ?"
                " AND verdict != 'QUARANTINED' AND verdict = 'REVIEW')",
                [(digest,) for digest in digests],
            )

    def undecided(self, limit: int) -> list[str]:
        """Return the digests of sent images, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT digest FROM queue JOIN images USING (seq) WHERE state = 'sent'"
                " ORDER BY seq LIMIT ?",
                (limit,),
            ).fetchall()
        return [row[0] for row in rows]

    def unqueued(self, limit: int) -> list[tuple[int, str, str]]:
        """Return seq, name and digest of doubtful images that found no room, oldest first."""
        with self._database.reading() as connection:
            return connection.execute(
                "SELECT seq, name, digest FROM images WHERE verdict = 'REVIEW' AND central IS NULL"
                " AND seq NOT IN (SELECT seq FROM queue) ORDER BY seq LIMIT ?",
                (limit,),
            ).fetchall()

    def fill(self, seq: int, content: bytes) -> bool:
        """Add an image that found no room before; False where there is still none."""
        with self._database.transaction() as connection:
            if not connection.execute("SELECT 1 FROM images WHERE seq = ?", (seq,)).fetchone():
                return True  # forgotten meanwhile
            return self.put(connection, seq, content)

    def give_up(self, seq: int, reason: str) -> None:
        """Note that an image that found no room before never will; it stays for a person."""
        self._change(
            "INSERT INTO queue (seq, bytes, state, reason)"
            " SELECT seq, 0, 'refused', ? FROM images WHERE seq = ?",
            reason,
            seq,
        )

    def state(self) -> QueueState:
        """Count the images of the queue."""
        with self._database.reading() as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM queue GROUP BY state"))
            (doubtful,) = connection.execute(
                "SELECT COUNT(*) FROM images WHERE verdict = 'REVIEW' AND central IS NULL"
            ).fetchone()
        return QueueState(**found, unqueued=doubtful - sum(found.values()))

    def refusals(self) -> list[tuple[str, str]]:
        """Return name and reason of images that the central machine will not decide."""
        with self._database.reading() as connection:
            return connection.execute(
                "SELECT name, reason FROM queue JOIN images USING (seq) WHERE state = 'refused'"
                " ORDER BY seq"
            ).fetchall()

    def _change(self, statement: str, *values: object) -> None:
        with self._database.transaction() as connection:
            connection.execute(statement, values)
