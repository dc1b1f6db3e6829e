"""The journal of a line: each image once, each result in order, each consumer's place.

What was decided, the results to hand on and the images to send for review are written by one
transaction. Everything outside (sinks, the central model) is fed from here, so that nothing is told
that a crash could still take back, and what is told twice carries the same number.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from connectors.defects.inspect.database import Database
from connectors.defects.inspect.inspector import Opinion
from connectors.defects.inspect.review_queue import QueueLimits, ReviewQueue
from connectors.defects.inspect.tables import TABLES
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.defects.watch.view import View

QUARANTINED = "QUARANTINED"
JUDGED = ("OK", "NG", "REVIEW")
VERDICTS = (*JUDGED, QUARANTINED)
MAX_PAYLOAD = 1 << 20
"""Larger broken files stand in their quarantine record as JSON with name, size and SHA-256."""
DUPLICATE = "duplicate-of"


@dataclass(frozen=True, slots=True)
class Inspected:
    """One file, as the line hands it over.

    Attributes:
        name: Path within the folder.
        stat: Size and time of the file: says whether it is the same one without reading it.
        digest: SHA-256 of its content in hexadecimal, "" where it could not be read.
        content: Its bytes.
        opinion: What the edge says, None where the file was refused.
        refusal: Why it was.
        heat: PNG of the heat map, b"" where none is kept.
        milliseconds: What judging took.
        view: What the watch of the line keeps of it, None where it is not watched.
    """

    name: str
    stat: str
    digest: str
    content: bytes = b""
    opinion: Opinion | None = None
    refusal: ImageRefusedError | None = None
    heat: bytes = b""
    milliseconds: float = 0.0
    view: View | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the journal, as sinks get it.

    Attributes:
        event: Its number; grows, never used again.
        seq: Number of the image.
        body: JSON: event, journal, image, digest, time, edge, central, final, settled, quarantine.
    """

    event: int
    seq: int
    body: dict[str, Any]


class Journal:
    """Everything that a line remembers.

    Attributes:
        queue: The images on their way to the central model.
        id: Tells the events of this journal from those of others.
    """

    def __init__(self, path: Path, limits: QueueLimits | None = None) -> None:
        """Open the file, making it where there is none.

        Raises:
            JournalError: As `Database`.
        """
        self.database = Database(path, TABLES)
        self.queue = ReviewQueue(self.database, limits or QueueLimits())
        with self.database.reading() as connection:
            (self.id,) = connection.execute("SELECT value FROM facts WHERE name = 'id'").fetchone()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no thread may use it any more."""
        self.database.close()

    def knows(self, name: str, stat: str) -> bool:
        """Tell whether a file of that name was seen as it is."""
        with self.database.reading() as connection:
            asked = "SELECT 1 FROM images WHERE name = ? AND stat = ? LIMIT 1"
            return connection.execute(asked, (name, stat)).fetchone() is not None

    def record(
        self,
        batch: Sequence[Inspected],
        *,
        queued: bool,
        also: Callable[[sqlite3.Connection, Sequence[Inspected]], None] | None = None,
    ) -> Counter[str]:
        """Keep what was decided of some files, all or nothing of it.

        A file that was touched but holds what it held is not counted again. One that holds what
        another file held is set aside as its duplicate: a camera that repeats itself.

        Args:
            batch: In the order of the line.
            queued: Whether doubtful images go to the review queue.
            also: Called in the same transaction with the files that were judged and are new.

        Returns:
            Files by verdict; ``again`` counts touched ones, ``unqueued`` doubtful ones for which
            the queue had no room.

        Raises:
            JournalError: They could not be kept.
        """
        counts: Counter[str] = Counter()
        with self.database.transaction() as connection:
            new = []
            for one in batch:
                told = self._record_one(connection, one, queued=queued)
                counts.update(told)
                if told[0] in JUDGED:
                    new.append(one)
            if also is not None:
                also(connection, new)
        return counts

    def settle(self, digest: str, central: dict[str, Any]) -> bool:
        """Take a decision of the central model; False where there is one already.

        Args:
            digest: Of the image.
            central: Its opinion; ``verdict`` is final.
        """
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT seq FROM images WHERE digest = ? AND verdict != 'QUARANTINED'"
                " AND verdict = 'REVIEW' AND central IS NULL",
                (digest,),
            ).fetchone()
            if row is None:
                return False
            final = central["verdict"]
            connection.execute(
                "UPDATE images SET central = ?, final = ? WHERE seq = ?",
                (json.dumps(central), final, row[0]),
            )
            connection.execute("DELETE FROM queue WHERE seq = ?", row)
            _append_event(connection, row[0])
        return True

    def results_after(self, event: int, limit: int) -> list[Result]:
        """Return the next results behind an event, in order."""
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT id, seq, body FROM events WHERE id > ? ORDER BY id LIMIT ?", (event, limit)
            ).fetchall()
        return [
            Result(i, seq, {"event": i, "journal": self.id, **json.loads(body)})
            for i, seq, body in rows
        ]

    def cursor(self, consumer: str) -> int:
        """Return the last event that a consumer has."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT at FROM cursors WHERE consumer = ?", (consumer,)
            ).fetchone()
        return 0 if row is None else int(row[0])

    def advance(self, consumer: str, event: int, *, refused: str = "") -> None:
        """Note that a consumer has everything up to an event.

        Args:
            consumer: Its name.
            event: The last one it has.
            refused: Why it will never take that event, "" where it did.
        """
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT INTO cursors VALUES (?, ?)"
                " ON CONFLICT (consumer) DO UPDATE SET at = excluded.at",
                (consumer, event),
            )
            if refused:
                connection.execute(
                    "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", (consumer, event, refused)
                )

    def last_event(self) -> int:
        """Return the number of the newest event, forgotten or not; 0 before the first."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def heat(self, seq: int) -> bytes:
        """Return the heat map of an image as PNG, b"" where none is kept."""
        return self._blob("heat", seq)

    def payload(self, seq: int) -> bytes:
        """Return what the quarantine keeps of a file."""
        return self._blob("payload", seq)

    def drop_payloads(self, up_to: int) -> None:
        """Forget the payloads of images up to a number: they lie in the quarantine folder."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE images SET payload = NULL WHERE seq <= ? AND payload IS NOT NULL", (up_to,)
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every image: name, digest, verdict, edge, refusal, central, final, in order."""
        at = 0
        while True:
            with self.database.reading() as connection:
                found = connection.execute(
                    "SELECT seq, name, digest, verdict, final, edge, refusal, central FROM images"
                    " WHERE seq > ? ORDER BY seq LIMIT 1000",
                    (at,),
                ).fetchall()
            if not found:
                return
            for _, name, digest, verdict, final, *told in found:
                edge, refusal, central = map(_parsed, told)
                yield {
                    "name": name,
                    "digest": digest,
                    "verdict": verdict,
                    "final": final,
                    "edge": edge,
                    "refusal": refusal,
                    "central": central,
                }
            at = found[-1][0]

    def forgotten(self) -> list[tuple[str, str, str, int]]:
        """Return verdict, final verdict, rule ("" for none) and number of forgotten images."""
        with self.database.reading() as connection:
            return connection.execute(
                "SELECT verdict, final, rule, images FROM forgotten ORDER BY verdict, final, rule"
            ).fetchall()

    def refused(self) -> dict[str, int]:
        """Return consumer -> events that it will never take."""
        with self.database.reading() as connection:
            return dict(
                connection.execute("SELECT consumer, COUNT(*) FROM refusals GROUP BY consumer")
            )

    def _record_one(
        self, connection: sqlite3.Connection, one: Inspected, *, queued: bool
    ) -> list[str]:
        same = connection.execute(
            "SELECT seq FROM images WHERE name = ? AND digest = ? ORDER BY seq DESC LIMIT 1",
            (one.name, one.digest),
        ).fetchone()
        if same is not None and one.digest:
            connection.execute("UPDATE images SET stat = ? WHERE seq = ?", (one.stat, same[0]))
            return ["again"]
        refusal = one.refusal or _repeats(connection, one.digest)
        if refusal is not None:
            self._insert(connection, one, QUARANTINED, refusal)
            return [QUARANTINED]
        if one.opinion is None:
            raise ValueError(f"{one.name}: neither judged nor refused")
        seq = self._insert(connection, one, one.opinion.verdict, None)
        counted = [one.opinion.verdict]
        if (
            queued
            and one.opinion.verdict == "REVIEW"
            and not self.queue.put(connection, seq, one.content)
        ):
            counted.append("unqueued")
        return counted

    @staticmethod
    def _insert(
        connection: sqlite3.Connection,
        one: Inspected,
        verdict: str,
        refusal: ImageRefusedError | None,
    ) -> int:
        edge = None
        if refusal is None and one.opinion is not None:
            edge = json.dumps(
                {**one.opinion.to_json(), "milliseconds": round(one.milliseconds, 3)},
                allow_nan=False,
            )
        made = connection.execute(
            "INSERT INTO images (name, stat, digest, time, verdict, edge, refusal, payload, heat,"
            " final) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.name,
                one.stat,
                one.digest,
                datetime.now(UTC).isoformat(timespec="milliseconds"),
                verdict,
                edge,
                None if refusal is None else json.dumps(_told(refusal)),
                None if refusal is None else _payload(one),
                (one.heat or None) if refusal is None else None,
                verdict,
            ),
        )
        seq = int(made.lastrowid or 0)
        _append_event(connection, seq)
        return seq

    def _blob(self, column: str, seq: int) -> bytes:
        with self.database.reading() as connection:
            row = connection.execute(
                f"SELECT {column} FROM images WHERE seq = ?",  # noqa: S608 - of two names above
                (seq,),
            ).fetchone()
        return b"" if row is None or row[0] is None else bytes(row[0])


def _append_event(connection: sqlite3.Connection, seq: int) -> None:
    name, digest, time, verdict, edge, refusal, central, final = connection.execute(
        "SELECT name, digest, time, verdict, edge, refusal, central, final FROM images"
        " WHERE seq = ?",
        (seq,),
    ).fetchone()
    body = {
        "image": name,
        "digest": digest,
        "time": time,
        "edge": _parsed(edge),
        "central": _parsed(central),
        "final": final,
        # A REVIEW without a central verdict may get one yet.
        "settled": verdict != "REVIEW" or central is not None,
        "quarantine": _parsed(refusal),
    }
    connection.execute("INSERT INTO events (seq, body) VALUES (?, ?)", (seq, json.dumps(body)))


def _repeats(connection: sqlite3.Connection, digest: str) -> ImageRefusedError | None:
    """Return the refusal of a file that holds what another one held."""
    row = connection.execute(
        "SELECT name FROM images WHERE digest = ? AND verdict != 'QUARANTINED'",
        (digest,),
    ).fetchone()
    if row is None or not digest:
        return None
    return ImageRefusedError(DUPLICATE, f"the same bytes as {row[0]}", "an image of its own")


def _payload(one: Inspected) -> bytes:
    if one.digest and len(one.content) <= MAX_PAYLOAD:
        return one.content
    said: dict[str, Any] = {"file": one.name}
    if one.digest:
        said |= {"bytes": len(one.content), "sha256": one.digest}
    return json.dumps(said, ensure_ascii=False).encode()


def _told(refusal: ImageRefusedError) -> dict[str, str]:
    return {
        "rule": refusal.rule,
        "observed": refusal.observed,
        "expected": refusal.expected,
    }


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)
