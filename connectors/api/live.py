"""The decisions of the moment, for the page: what was last decided, and who wants to see more.

Nothing is formatted unless someone watches. A watcher gets at most a few decisions per beat,
blocked and reviewed ones first, and is told how many there were.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import orjson

from connectors.api.rules import DECISIONS

KEEP = 200
PER_BEAT = 12
BEAT_SECONDS = 0.5
MAX_WATCHERS = 32


class Decision(NamedTuple):
    """One scored transaction.

    Attributes:
        event: Its id.
        time: Epoch milliseconds.
        amount: Major units.
        entities: Its entity ids, in the order of the config.
        score: Probability, None where only rules decided.
        decision: What was decided.
        reason: The first reason in words, empty if none.
    """

    event: str
    time: int
    amount: float
    entities: tuple[str, ...]
    score: float | None
    decision: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return self._asdict()


class LiveDecisions:
    """The newest decisions, and a stream of them for each watcher."""

    def __init__(self) -> None:
        self.newest: deque[Decision] = deque(maxlen=KEEP)
        self.alerts: deque[Decision] = deque(maxlen=KEEP)
        self.totals = dict.fromkeys(DECISIONS, 0)
        self.watchers = 0

    @property
    def total(self) -> int:
        """Decisions so far."""
        return sum(self.totals.values())

    def add(self, decision: Decision) -> None:
        """Note a decision."""
        self.totals[decision.decision] += 1
        self.newest.append(decision)
        if decision.decision != "approve":
            self.alerts.append(decision)

    def recent(self, limit: int) -> list[Decision]:
        """Return the newest decisions, newest first."""
        return list(self.newest)[-limit:][::-1]

    async def watch(self, over: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events until the watcher goes, or it is over."""
        self.watchers += 1
        try:
            seen = self.total
            yield b"retry: 2000\n\n"
            while not over():
                await asyncio.sleep(BEAT_SECONDS)
                fresh = self.total - seen
                seen = self.total
                if fresh:
                    yield self._event(fresh)
                else:
                    yield b": nothing new\n\n"
        finally:
            self.watchers -= 1

    def _event(self, fresh: int) -> bytes:
        decisions = [d.to_dict() for d in self._chosen(fresh)]
        message = {"decisions": decisions, "count": fresh, "totals": self.totals}
        return b"event: decisions\ndata: " + orjson.dumps(message) + b"\n\n"

    def _chosen(self, fresh: int) -> list[Decision]:
        latest = list(self.newest)[-min(fresh, KEEP) :]
        alerts = [d for d in latest if d.decision != "approve"][-PER_BEAT:]
        room = PER_BEAT - len(alerts)
        others = [d for d in latest if d.decision == "approve"][-room:] if room else []
        wanted = {id(d) for d in (*alerts, *others)}
        return [d for d in latest if id(d) in wanted]
