"""What a journal says of a search: its trials, its clock, and who works on what."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kernels.tuning.journal import Event
from kernels.tuning.space import Parameters

State = Literal["running", "complete", "pruned", "out of time", "failed"]


@dataclass(slots=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Its number, from 0.
        parameters: What was tried.
        worker: Process that works on it, or did; "" when it was given back.
        attempt: How often it was begun.
        seen: Time of its last event, in seconds.
        state: What became of it.
        reports: Figure by step.
        value: Its figure in the end; NaN where it had none.
        reason: Why it failed.
    """

    number: int
    parameters: Parameters
    worker: str
    attempt: int
    seen: float
    state: State = "running"
    reports: dict[int, float] = field(default_factory=dict)
    value: float = math.nan
    reason: str = ""


class History:
    """All trials of a search, as its events tell.

    Attributes:
        trials: The trials in order.
        head: First event, which says what is searched; None when there is none yet.
    """

    def __init__(self) -> None:
        self.trials: list[TrialRecord] = []
        self.head: Event | None = None
        self._began = 0.0
        self._idle = 0.0
        self._latest = 0.0

    def apply(self, event: Event) -> None:
        """Take an event in.

        Raises:
            KeyError, IndexError: When it does not follow from those before.
        """
        kind, at = event["event"], float(event["at"])
        if kind == "search":
            self.head, self._began = event, at
        elif kind == "open":
            self._idle += float(event["idle"])
        elif kind == "ask":
            self._ask(event, at)
        else:
            trial = self.trials[event["trial"]]
            trial.seen = at
            if kind == "report":
                trial.reports[int(event["step"])] = _figure(event["value"])
            elif kind == "give back":
                trial.worker, trial.attempt = "", trial.attempt - 1
            elif kind == "end":
                trial.state, trial.value = event["state"], _figure(event["value"])
                trial.reason = event.get("reason", "")
            else:
                raise KeyError(kind)
        self._latest = max(self._latest, at)

    def spent(self, now: float) -> float:
        """Return the seconds that the search has lasted, without those when nobody worked."""
        return max(now - self._began - self._idle, 0.0) if self.head else 0.0

    def silence(self, now: float, lost_after: float) -> float:
        """Return the seconds since the last event if nobody has worked since, else 0."""
        alive = any(t.state == "running" and not is_lost(t, now, lost_after) for t in self.trials)
        return 0.0 if alive or not self.head else max(now - self._latest, 0.0)

    def _ask(self, event: Event, at: float) -> None:
        number = int(event["trial"])
        if number == len(self.trials):
            self.trials.append(
                TrialRecord(number, dict(event["parameters"]), event["worker"], 1, at)
            )
            return
        trial = self.trials[number]
        trial.worker, trial.seen, trial.attempt = event["worker"], at, trial.attempt + 1


def figure_for_json(value: float) -> float | None:
    """Return a figure as JSON can hold it: None when it is not finite."""
    return value if math.isfinite(value) else None


def this_worker() -> str:
    """Return a name of this process that no later one has: host, id and time of its start."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def is_lost(trial: TrialRecord, now: float, lost_after: float) -> bool:
    """Whether the process that works on a trial is gone.

    Those of this machine are looked up, what was given back is nobody's; others count as gone after
    ``lost_after`` silent seconds.
    """
    if not trial.worker:
        return True
    host, pid, started = trial.worker.rsplit(" ", 2)
    if host == socket.gethostname():
        return _started(int(pid)) != started
    return now - trial.seen > lost_after


def _started(pid: int) -> str:
    if pid == os.getpid():
        return _own_start(pid)
    return _read_start(pid)


@cache
def _own_start(pid: int) -> str:
    return _read_start(pid)


def _read_start(pid: int) -> str:
    """Return when a process started, in ticks since boot; "" when there is none (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _figure(value: Any) -> float:
    return math.nan if value is None else float(value)
