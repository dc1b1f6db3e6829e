"""The watch of a running line: learns from its first parts, then tells what has changed, once.

Its state changes in the transaction that keeps what was judged, so each image counts once, whatever
is killed when. Nothing here judges images or stops the line.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from connectors.defects.inspect.file_sinks import JsonLinesSink
from connectors.defects.inspect.inspector import Opinion
from connectors.defects.inspect.journal import Inspected, Journal, Result
from connectors.defects.inspect.sink import SinkError
from connectors.defects.inspect.watch_state import (
    State,
    forget_state,
    keep_view,
    kept_views,
    read_state,
    save_learnt,
    save_state,
)
from infra.errors import ConfigurationError
from tasks.defects.data.groups import parts_by_pattern
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Pixels
from tasks.defects.watch.line import LEAST, Alarm, LineWatch, WatchConfig
from tasks.defects.watch.view import View

logger = logging.getLogger(__name__)

MOST = 2_000
"""Parts that can be learnt from; each takes 16 kB of the journal until then."""
QUIET = 1_000
"""Parts without an alarm about a thing, after which the next one is told as a new one."""
KEPT, SHOWN = 1_000, 100
"""Newest alarms that the journal remembers, and that the report shows."""


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """How a line is watched.

    Attributes:
        parts: Parts that are learnt from; 0 for no watch.
        part_pattern: A regular expression that finds the part in an image's path, as
            `parts_by_pattern` reads it; of images of one part in a row the first is watched. ""
            where each image shows a part of its own.
        relearn: Forget what was learnt.
        watch: What is promised.
    """

    parts: int = 100
    part_pattern: str = ""
    relearn: bool = False
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.parts and not LEAST <= self.parts <= MOST:
            raise ValueError(
                f"{self.parts} parts to learn the line from; give {LEAST} to {MOST:,}, or 0 for no "
                "watch"
            )
        parts_by_pattern((), self.part_pattern)


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What the watch of a line says.

    Attributes:
        missing: Parts that it has yet to learn from, 0 once it has learnt.
        since: When it had learnt, "" before.
        seen: Parts since then.
        arl: The chance of any false alarm within t parts is at most t / ``arl``.
        anew: Why it forgot what it had learnt before, "" where it did not.
        unknown_limit: Rate of unknown defects above which it alarms, None before it has learnt.
        not_judged: What is not watched, and why.
        told: Alarms so far.
        alarms: The newest of them: event, journal, time, image, about, what, at, message, evidence,
            needed, arl, and ``times`` that it came within `QUIET` parts of the last time.
        before: Number of the last alarm before this run.
    """

    missing: int
    since: str
    seen: int
    arl: float
    anew: str
    unknown_limit: float | None
    not_judged: dict[str, str]
    told: int
    alarms: tuple[dict[str, Any], ...]
    before: int = 0

    @property
    def new(self) -> list[dict[str, Any]]:
        """Alarms of this run."""
        return [one for one in self.alarms if one["event"] > self.before]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        said = asdict(self)
        del said["before"]
        return {"state": "learning" if self.missing else "learned", **said}


class Monitor:
    """Watches one line, from the thread that keeps what was judged."""

    def __init__(
        self, journal: Journal, model: str, config: MonitorConfig, file: JsonLinesSink
    ) -> None:
        """Go on where the journal says, or learn anew where that is no use.

        Args:
            journal: Of the line.
            model: Digest of the model; scores of another one are other numbers.
            config: How.
            file: Takes the alarms; closed by whoever opened it.

        Raises:
            JournalError: The journal cannot be used.
            ConfigurationError: The file has alarms that the journal has not made yet.
        """
        self._journal, self._model, self._config, self._file = journal, model, config, file
        self._relearn = config.relearn
        self._pending: list[tuple[int, str]] = []
        with journal.database.transaction() as connection:
            self._taken = self._opened(connection)
            self._before = self._newest = _last(connection)
            if file.position > self._newest:
                raise ConfigurationError(
                    f"{file.name} has alarms that the journal has not made",
                    "Move the file away, or put the journal back that belongs to it",
                )
        self._state: State | None = self._taken
        self._relearn = False
        self._write()

    def view(self, pixels: Pixels, opinion: Opinion) -> View:
        """Return what is kept of an image, uint8 [h, w] or [h, w, 3], until it is journalled.

        A model that knows no types calls every defect unknown, which tells nothing.
        """
        unknown = opinion.kind == UNKNOWN and len(opinion.kinds) > 1 and opinion.verdict != "OK"
        return View.of(pixels, opinion.score, unknown=unknown)

    def take(self, connection: sqlite3.Connection, new: Sequence[Inspected]) -> None:
        """Take in judged images that are new, within the transaction that keeps them."""
        state = self._state or self._opened(connection)
        self._state = None  # until `kept`: of a transaction that fails nothing may stay
        self._taken, self._pending = state, []
        views = [(one.name, one.view) for one in new if one.view is not None]
        for name, view in views:
            part = parts_by_pattern([name], self._config.part_pattern).get(name, name)
            if self._config.part_pattern and part == state.part:
                continue
            state.part = part if self._config.part_pattern else ""
            if state.watch is None:
                self._learn(connection, state, view)
            else:
                for alarm in state.watch.look_at(view, name):
                    self._keep(connection, name, alarm, state.arl)
        if views:
            save_state(connection, state)

    def kept(self) -> None:
        """Tell of what `take` found, now that it is kept."""
        self._state = self._taken
        for number, text in self._pending:
            self._newest = number
            logger.warning("the line has changed: %s", text)
        self._pending = []
        if self._file.position < self._newest:
            self._write()

    def report(self) -> WatchReport:
        """Return what is to be told of the watch."""
        with self._journal.database.transaction() as connection:
            state = self._state or self._opened(connection)
            told = _last(connection)
            alarms = _alarms(connection, told - SHOWN)
        watch, name = state.watch, self._journal.id
        return WatchReport(
            missing=0 if watch else max(self._config.parts - state.learnt, 1),
            since=state.since,
            seen=watch.seen if watch else 0,
            arl=state.arl,
            anew=state.anew,
            unknown_limit=watch.unknown.limit if watch else None,
            not_judged=watch.not_judged if watch else {},
            told=told,
            alarms=tuple(
                {"event": n, "journal": name, **body, "times": times} for n, times, body in alarms
            ),
            before=self._before,
        )

    def _opened(self, connection: sqlite3.Connection) -> State:
        """Read the state, or begin anew."""
        try:
            state = read_state(connection)
        except ValueError as error:
            logger.warning("the watch of the line cannot be read and learns anew: %s", error)
            return self._anew(connection, f"its state could not be read: {error}"[:300])
        if state is None:
            return self._anew(connection, "")
        why = "as was asked for" if self._relearn else ""
        if state.model != self._model:
            why = "another model judges"
        if not why:
            return state
        logger.info("the watch of the line learns anew: %s", why)
        return self._anew(connection, why)

    def _anew(self, connection: sqlite3.Connection, why: str) -> State:
        forget_state(connection)
        connection.execute("UPDATE alarms SET last = NULL")
        state = State(self._model, self._config.watch.arl, anew=why)
        save_state(connection, state)
        return state

    def _learn(self, connection: sqlite3.Connection, state: State, view: View) -> None:
        keep_view(connection, view)
        state.learnt += 1
        if state.learnt < self._config.parts:
            return
        state.watch = LineWatch.learn_from(kept_views(connection), self._config.watch)
        state.since, state.arl = _time(), self._config.watch.arl
        save_learnt(connection, state.watch)
        logger.info("the line is learnt from %d parts", state.learnt)

    def _keep(self, connection: sqlite3.Connection, name: str, alarm: Alarm, arl: float) -> None:
        """Keep an alarm, or count it where the same was told not long ago."""
        row = connection.execute(
            "SELECT id, last FROM alarms WHERE about = ? AND last IS NOT NULL"
            " ORDER BY id DESC LIMIT 1",
            (alarm.about,),
        ).fetchone()
        if row is not None and alarm.at - row[1] <= QUIET:
            connection.execute(
                "UPDATE alarms SET last = ?, times = times + 1 WHERE id = ?", (alarm.at, row[0])
            )
            return
        body = {"time": _time(), "image": name, **asdict(alarm), "arl": arl}
        made = connection.execute(
            "INSERT INTO alarms (about, last, times, body) VALUES (?, ?, 1, ?)",
            (alarm.about, alarm.at, json.dumps(body, allow_nan=False)),
        )
        number = int(made.lastrowid or 0)
        connection.execute("DELETE FROM alarms WHERE id <= ?", (number - KEPT,))
        self._pending.append((number, f"{name}: {alarm.message}"))

    def _write(self) -> None:
        """Append what the file has not got; a disk that is full gets it later."""
        with self._journal.database.reading() as connection:
            new = _alarms(connection, self._file.position)
        name = self._journal.id
        try:
            self._file.write(
                [Result(n, n, {"event": n, "journal": name, **body}) for n, _, body in new]
            )
        except SinkError as error:
            logger.warning("alarms stand in the journal alone for now: %s", error)


def _last(connection: sqlite3.Connection) -> int:
    """Return the number of the newest alarm, remembered or not; 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'alarms'").fetchone()
    return 0 if row is None else int(row[0])


def _alarms(connection: sqlite3.Connection, after: int) -> list[tuple[int, int, dict[str, Any]]]:
    """Return number, times and body of the alarms behind one."""
    rows = connection.execute(
        "SELECT id, times, body FROM alarms WHERE id > ? ORDER BY id", (after,)
    )
    return [(number, times, json.loads(body)) for number, times, body in rows]


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
