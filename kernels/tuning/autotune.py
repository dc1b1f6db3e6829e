"""AutoTune: asks for parameters, hears how their training goes, ends what is not worth its time.

Ask and tell: the caller trains, in one process or in several that share the journal.

    tune = AutoTune(space, Path("search.jsonl"), AutoTuneConfig(seconds=600, asha=...))
    while trial := tune.ask():
        ...  # train with trial.parameters; end early when tune.report(trial, step, value) is False
        tune.tell(trial, value)
    tune.best
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from kernels.tuning.asha import AshaConfig, may_go_on
from kernels.tuning.history import (
    History,
    State,
    TrialRecord,
    figure_for_json,
    is_lost,
    this_worker,
)
from kernels.tuning.journal import Event, Journal, JournalError
from kernels.tuning.space import Parameters, Space
from kernels.tuning.tpe import Tpe

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoTuneConfig:
    """How is searched, and for how long.

    Attributes:
        seconds: Budget of the search in seconds, those of earlier processes included; what still
            trains then ends at its next report. None: no limit.
        trials: Trials that are asked for at most; None: no limit.
        goal: Whether a low (``min``) or a high (``max``) figure is good.
        seed: Seed of the proposals.
        startup: Trials drawn at random before the estimator proposes.
        at_random: Share of the later trials that is drawn at random, too, so that no part of the
            space is given up for good.
        asha: When trials are compared; None: every trial trains to its end.
        attempts: How often a trial is begun whose process died; it counts as failed then.
        lost_after: Silent seconds after which a process on another machine counts as dead.
    """

    seconds: float | None = None
    trials: int | None = None
    goal: Literal["min", "max"] = "min"
    seed: int = 0
    startup: int = 10
    at_random: float = 0.2
    asha: AshaConfig | None = None
    attempts: int = 3
    lost_after: float = 3_600.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.seconds is None and self.trials is None:
            raise ValueError("give a budget: seconds, trials, or both; the search never ends else")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}")
        if self.goal not in {"min", "max"}:
            raise ValueError(f"goal is {self.goal!r}; take 'min' or 'max'")
        if not 0 <= self.at_random <= 1:
            raise ValueError(f"at_random is a share, from 0 to 1, got {self.at_random}")
        if self.startup < 1 or self.attempts < 1 or not self.lost_after > 0:
            raise ValueError("startup and attempts must be at least 1, lost_after positive")


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of parameters to be tried.

    Attributes:
        number: Its number, from 0.
        parameters: The parameters.
        attempt: How often it was begun, this time included.
    """

    number: int
    parameters: Parameters
    attempt: int = 1

    @property
    def key(self) -> str:
        """Name for a folder of checkpoints: the same in every attempt, another in every trial."""
        text = json.dumps(self.parameters, sort_keys=True).encode()
        return f"trial-{self.number:04d}-{hashlib.sha256(text).hexdigest()[:8]}"


class AutoTune:
    """One search; every method may be called from any thread, and by several processes."""

    def __init__(
        self,
        space: Space,
        journal: Path,
        config: AutoTuneConfig,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin a search, or go on with the one in the journal.

        Args:
            space: What is searched.
            journal: File of the search.
            config: Settings; the budget may be another one than before.
            clock: Seconds that all processes share.

        Raises:
            JournalError: When the journal cannot be read or holds another search.
        """
        self.space, self.config = space, config
        self._clock, self._worker = clock, this_worker()
        self._journal = Journal(journal)
        self._thread = threading.RLock()
        self._history = History()
        self._tpe = Tpe(
            space,
            goal=config.goal,
            seed=config.seed,
            startup=config.startup,
            at_random=config.at_random,
        )
        self._sign = 1.0 if config.goal == "min" else -1.0
        try:
            with self._locked():
                self._open()
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal; trials that still run here count as lost when the process ends."""
        self._journal.close()

    def ask(self) -> Trial | None:
        """Return what to try next, None when the budget is used up.

        A trial whose process died comes first, with its number: where its training is resumable,
        it goes on from its checkpoint.
        """
        with self._locked():
            now = self._clock()
            if self._is_out_of_time(now):
                return None
            for record in self._history.trials:
                if record.state != "running" or not is_lost(record, now, self.config.lost_after):
                    continue
                last = max(record.reports, default=0)
                if last and not self._is_worth_it(record, last):
                    # Its process died between the report and what follows from it.
                    self._end(record, "pruned", record.reports[last])
                elif record.attempt >= self.config.attempts:
                    self._end(record, "failed", math.nan, f"begun {record.attempt} times in vain")
                else:
                    self._write("ask", trial=record.number, worker=self._worker)
                    return self._trial(record)
            number = len(self._history.trials)
            if self.config.trials is not None and number >= self.config.trials:
                return None
            parameters = self._tpe.propose(number)
            self._write("ask", trial=number, parameters=parameters, worker=self._worker)
            return self._trial(self._history.trials[number])

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Hear a figure of a trial in training; return whether it is to go on.

        One that is not to go on has ended by that; telling it changes nothing.

        Args:
            trial: The trial.
            step: Steps it has trained.
            value: Figure by which it is judged.
        """
        with self._locked():
            record = self._record(trial)
            if record.state != "running":
                return False
            if step not in record.reports:
                self._write("report", trial=trial.number, step=step, value=figure_for_json(value))
            if not self._is_worth_it(record, step):
                self._end(record, "pruned", value)
            elif self._is_out_of_time(self._clock()):
                self._end(record, "out of time", value)
            return record.state == "running"

    def tell(self, trial: Trial, value: float) -> None:
        """End a trial that trained to its end; one without a finite figure counts as the worst.

        That counts also where the budget was used up at its very last report.
        """
        with self._locked():
            record = self._record(trial)
            if record.state in {"running", "out of time"}:
                self._end(record, "complete", value)

    def fail(self, trial: Trial, reason: str) -> None:
        """End a trial that could not be trained; it teaches nothing."""
        with self._locked():
            record = self._record(trial)
            if record.state == "running":
                self._end(record, "failed", math.nan, reason)

    def give_back(self, trial: Trial) -> None:
        """Leave a trial to whoever asks next: it is to be gone on with, at another time."""
        with self._locked():
            if self._record(trial).state == "running":
                self._write("give back", trial=trial.number)

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials so far, in order."""
        with self._locked():
            return list(self._history.trials)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best figure of those that trained to the end, else of all."""
        found = [t for t in self.trials if math.isfinite(t.value)]
        whole = [t for t in found if t.state == "complete"] or found
        return min(whole, key=lambda t: self._sign * t.value, default=None)

    @property
    def spent(self) -> float:
        """Seconds that the search has lasted, in all processes so far."""
        with self._locked():
            return self._history.spent(self._clock())

    def _open(self) -> None:
        if self._history.head is None:
            self._write("search", **self._identity())
            return
        now = self._clock()
        self._write("open", idle=self._history.silence(now, self.config.lost_after))

    def _identity(self) -> Event:
        settings = {"goal": self.config.goal, "seed": self.config.seed}
        return {"format": FORMAT, "space": self.space.describe(), **settings}

    def _require_same(self, head: Event) -> None:
        mine = self._identity()
        differing = [name for name, value in mine.items() if head.get(name) != value]
        if differing:
            raise JournalError(
                f"journal {self._journal.path} holds a search with another "
                f"{', '.join(differing)}; give the search a journal of its own"
            )

    def _is_out_of_time(self, now: float) -> bool:
        return self.config.seconds is not None and self._history.spent(now) >= self.config.seconds

    def _is_worth_it(self, record: TrialRecord, step: int) -> bool:
        value = record.reports[step]
        before = max((s for s in record.reports if s < step), default=0)
        if not math.isfinite(value):
            return False
        asha = self.config.asha
        rung = asha.rung_of(record.number, before, step) if asha else None
        if asha is None or rung is None:
            return True
        others = [
            self._sign * figure
            for other in self._history.trials
            if other is not record and (figure := _figure_at(other, rung)) is not None
        ]
        return may_go_on(self._sign * value, others, asha.reduction)

    def _end(self, record: TrialRecord, state: State, value: float, reason: str = "") -> None:
        more = {"reason": reason} if reason else {}
        figure = figure_for_json(value)
        self._write("end", trial=record.number, state=state, value=figure, **more)

    def _write(self, kind: str, **fields: Any) -> None:
        event = {"event": kind, "at": round(self._clock(), 3), **fields}
        self._journal.append(event)
        self._apply(event)

    def _apply(self, event: Event) -> None:
        history = self._history
        known = len(history.trials)
        if event["event"] == "search":
            self._require_same(event)
        history.apply(event)
        if event["event"] == "ask" and len(history.trials) > known:
            if not self._tpe.knows(known):
                self._tpe.begin(known, history.trials[known].parameters)
        elif event["event"] == "report":
            record = history.trials[event["trial"]]
            self._tpe.report(record.number, event["step"], record.reports[event["step"]])
        elif event["event"] == "end":
            self._tpe.end(history.trials[event["trial"]])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread, self._journal.locked() as news:
            for event in news:
                try:
                    self._apply(event)
                except JournalError:
                    raise
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise JournalError(
                        f"journal {self._journal.path} holds an event that does not follow from "
                        f"those before: {json.dumps(event)[:200]}; delete the lines from there on"
                    ) from error
            yield

    def _record(self, trial: Trial) -> TrialRecord:
        trials = self._history.trials
        if trial.number >= len(trials) or trials[trial.number].parameters != trial.parameters:
            raise ValueError(
                f"trial {trial.number} with {trial.parameters} is not of this search; "
                "report and tell what its own ask() gave"
            )
        return trials[trial.number]

    def _trial(self, record: TrialRecord) -> Trial:
        return Trial(record.number, dict(record.parameters), record.attempt)


def _figure_at(record: TrialRecord, rung: int) -> float | None:
    """Return the first figure of a trial at a rung or after it, None before it came there."""
    steps = [step for step in record.reports if step >= rung]
    return record.reports[min(steps)] if steps else None
