"""The watch of a line as the journal holds it: what is being learnt from, then what was learnt."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from tasks.defects.watch.line import MAX_STATE, LineWatch
from tasks.defects.watch.view import View

FACTS, STATE, CAMERA = "watch", "watch state", "watch camera"
"""Names in the journal. The camera's reference is two thirds of the state and never changes."""
_FACTS = ("model", "arl", "since", "anew", "part")


@dataclass(slots=True)
class State:
    """Of a watch, at the end of a transaction.

    Attributes:
        model: Digest of the model whose scores are watched.
        arl: What is promised.
        since: When the line was learnt, "" before.
        anew: Why what was known before was forgotten, "" where it was not.
        part: The last one, where images tell theirs.
        watch: What was learnt.
        learnt: Views kept so far to learn from.
    """

    model: str
    arl: float
    since: str = ""
    anew: str = ""
    part: str = ""
    watch: LineWatch | None = None
    learnt: int = 0


def read_state(connection: sqlite3.Connection) -> State | None:
    """Return the state, None where there was none yet.

    Raises:
        ValueError: It is damaged.
    """
    text = _fact(connection, FACTS)
    if not text:
        return None
    views = kept_views(connection)
    try:
        said = json.loads(text)
        state = State(**{name: said[name] for name in _FACTS}, learnt=len(views))
        if state.since:
            texts = _fact(connection, STATE), _fact(connection, CAMERA)
            if not all(0 < len(text) <= MAX_STATE for text in texts):
                raise ValueError("a part of its state is missing or far too large")
            said, camera = map(json.loads, texts)
            state.watch = LineWatch.restored({**said, "camera": camera})
    except (KeyError, TypeError) as error:
        raise ValueError(f"its state is damaged ({error!r})") from error
    return state


def save_state(connection: sqlite3.Connection, state: State) -> None:
    """Write what changes from part to part: some 10 kB."""
    _put(connection, FACTS, json.dumps({name: getattr(state, name) for name in _FACTS}))
    if state.watch is not None:
        said = state.watch.state()
        del said["camera"]
        _put(connection, STATE, json.dumps(said, allow_nan=False))


def save_learnt(connection: sqlite3.Connection, watch: LineWatch) -> None:
    """Write what does not change, and let the views go."""
    connection.execute("DELETE FROM watched")
    _put(connection, CAMERA, json.dumps(watch.state()["camera"]))


def forget_state(connection: sqlite3.Connection) -> None:
    """Forget what was learnt, and what was being learnt from."""
    connection.execute("DELETE FROM facts WHERE name IN (?, ?, ?)", (FACTS, STATE, CAMERA))
    connection.execute("DELETE FROM watched")


def keep_view(connection: sqlite3.Connection, view: View) -> None:
    """Keep the view of a part until there are enough to learn from."""
    connection.execute("INSERT INTO watched (numbers, small) VALUES (?, ?)", view.state())


def kept_views(connection: sqlite3.Connection) -> list[View]:
    """Return the views kept, in order.

    Raises:
        ValueError: One is damaged.
    """
    rows = connection.execute("SELECT numbers, small FROM watched ORDER BY id").fetchall()
    return [View.restored(*row) for row in rows]


def _put(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def _fact(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])
