"""Profiles some steps of a run: operators, memory over time, a trace, and why time is lost.

A callback of the Runner, or called by a loop of one's own after every step. Built on
``torch.profiler``; while it looks, steps take longer, and the report says by how much.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from kernels.runtime.callbacks import StepMetrics
from kernels.runtime.causes import Cause, Facts, causes_of
from kernels.runtime.profile_tables import (
    MemoryTimeline,
    OperatorRow,
    memory_timeline,
    operator_table,
)
from kernels.runtime.source import Batch, Batches
from kernels.runtime.trace import DATA, STEP, Trace, read_trace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileConfig:
    """Which steps are profiled.

    Attributes:
        warm_up: Steps before, whose times are no rule: allocators grow, caches fill. The last of
            them tell what a step takes without the profiler.
        steps: Steps that are profiled.
        name: Names the files.
    """

    warm_up: int = 5
    steps: int = 3
    name: str = "profile"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.warm_up < 1 or self.steps < 1:
            raise ValueError(
                f"profile.warm_up and profile.steps must be at least 1, got {self.warm_up} and "
                f"{self.steps}"
            )
        if not self.name or "/" in self.name:
            raise ValueError(f"profile.name is {self.name!r}; give a name for files, no path")


@dataclass(frozen=True, slots=True)
class Profile:
    """What was found.

    Attributes:
        steps: Profiled steps.
        step_seconds: Wall seconds of one, the profiler's own share included.
        facts: What the trace does not know.
        phases: Seconds per step of forward pass, backward pass, optimizer, data and the rest.
        causes: Causes of lost time, the worst first.
        operators: Operators, the most expensive first.
        memory: Memory over time.
        trace_path: Chrome trace, for chrome://tracing or Perfetto.
    """

    steps: int
    step_seconds: float
    facts: Facts
    phases: dict[str, float]
    causes: tuple[Cause, ...]
    operators: tuple[OperatorRow, ...]
    memory: MemoryTimeline
    trace_path: Path

    @property
    def report_path(self) -> Path:
        """The HTML report beside the trace."""
        return self.trace_path.with_name(self.trace_path.name.replace(".trace.json.gz", ".html"))

    @property
    def summary(self) -> str:
        """One sentence."""
        begin = f"A step took {1e3 * self.step_seconds:.1f} ms"
        plain = self.facts.plain_step_seconds
        if plain:
            begin += f" ({1e3 * plain:.1f} ms without the profiler)"
        if not self.causes:
            return f"{begin}; nothing was found that loses more than 2 % of it."
        first = self.causes[0]
        return f"{begin}; {first.name.lower()} loses the most, {first.share:.0%} of it."


class Profiler:
    """Profiles the steps after a warm-up, once; use as a callback, or call `step` after each.

    Attributes:
        result: What was found, None before.
    """

    def __init__(
        self,
        folder: Path,
        config: ProfileConfig | None = None,
        *,
        then: Callable[[Profile], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            folder: Where trace and report are written.
            config: Which steps.
            then: Called with the result, for instance to log it.
        """
        self.folder, self.config = folder, config or ProfileConfig()
        self.result: Profile | None = None
        self._then = then
        self._steps = 0
        self._stall, self._waited, self._waited_before = 0.0, 0.0, 0.0
        self._plain: list[float] = []
        self._last = time.perf_counter()
        self._running: profile | None = None
        self._mark: record_function | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def on_step(self, metrics: StepMetrics) -> None:
        """Take note of a step of the Runner."""
        self.step(stall_seconds=metrics.stall_seconds)

    def reading(self, batches: Batches[Batch]) -> Batches[Batch]:
        """Return a source whose batches show in the trace as what a step waits for."""
        return _Marked(batches)

    def step(self, *, stall_seconds: float = 0.0) -> None:
        """Take note of the end of a step.

        Args:
            stall_seconds: Seconds in which it had no batch.
        """
        if self.result is not None:
            return
        now = time.perf_counter()
        self._steps += 1
        if self._running is not None:
            # Of whole steps alone, as the trace: not of one that never ends.
            self._waited += core_wait_seconds() - self._waited_before
            self._end_mark()
            self._stall += stall_seconds
            if self._steps == self.config.warm_up + self.config.steps:
                self._finish()
                return
            self._begin_mark()
        elif self._steps == self.config.warm_up:
            self._plain.append(now - self._last)
            self._start()
        else:
            self._plain.append(now - self._last)
        self._last = time.perf_counter()

    def close(self) -> None:
        """End early, with the steps seen so far; without any, nothing is written."""
        if self._running is None:
            return
        self._end_mark()
        if self._steps > self.config.warm_up:
            self._finish(unfinished=True)
        else:
            self._running.stop()
            self._running = None

    def _start(self) -> None:
        # Its C++ part tells the terminal of every start, and of a GPU that is not there.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._running = profile(activities=activities, record_shapes=True, profile_memory=True)
        self._running.start()
        self._begin_mark()

    def _begin_mark(self) -> None:
        self._mark = record_function(STEP)
        self._mark.__enter__()  # type: ignore[no-untyped-call]  # torch's
        self._waited_before = core_wait_seconds()

    def _end_mark(self) -> None:
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None

    def _finish(self, *, unfinished: bool = False) -> None:
        if self._running is None:
            return
        self._running.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.config.name}.trace.json.gz"
        plain = path.with_suffix("")
        self._running.export_chrome_trace(str(plain))
        self._running = None
        # Packed here: torch would pack it line by line, which takes seconds.
        with plain.open("rb") as source, gzip.open(path, "wb", compresslevel=4) as packed:
            shutil.copyfileobj(source, packed)
        plain.unlink()
        trace = read_trace(path)
        if unfinished:
            end = trace.steps[-1].start
            trace = Trace(
                [row for row in trace.operators if row.start < end],
                [row for row in trace.annotations if row.start < end],
                [row for row in trace.kernels if row.start < end],
                [change for change in trace.memory if change.moment < end],
            )
        facts = Facts(
            stall_seconds=self._stall,
            core_wait_seconds=self._waited,
            threads=torch.get_num_threads(),
            cores=len(os.sched_getaffinity(0)),
            # The first step began before anybody looked.
            plain_step_seconds=min(self._plain[1:], default=0.0),
        )
        self.result = examine(trace, facts, path)
        from kernels.runtime.profile_report import write_report

        write_report(self.result)
        logger.info("%s %s", self.result.summary, self.result.report_path)
        for cause in self.result.causes:
            logger.info("%s", cause)
        if self._then is not None:
            self._then(self.result)


class _Marked(Generic[Batch]):
    def __init__(self, batches: Batches[Batch]) -> None:
        self._batches = batches

    def __call__(self, index: int) -> Batch:
        with record_function(DATA):
            return self._batches(index)


@contextmanager
def profiled(
    folder: Path,
    config: ProfileConfig | None = None,
    *,
    then: Callable[[Profile], None] | None = None,
) -> Iterator[Profiler]:
    """Profile a loop inside that calls `Profiler.step` after each of its steps.

    A loop that ends before all steps were seen is reported with those that were.
    """
    with Profiler(folder, config, then=then) as profiler:
        yield profiler


def examine(trace: Trace, facts: Facts, path: Path) -> Profile:
    """Return what a trace says.

    Args:
        trace: The trace.
        facts: What it does not know.
        path: Its file.
    """
    steps = max(len(trace.steps), 1)
    return Profile(
        len(trace.steps),
        trace.wall_seconds / steps,
        facts,
        phases_of(trace),
        causes_of(trace, facts),
        operator_table(trace),
        memory_timeline(trace),
        path,
    )


def phases_of(trace: Trace) -> dict[str, float]:
    """Return the seconds of a step by what they go to; together they are the step."""
    steps = max(len(trace.steps), 1)
    data = [a for a in trace.annotations if a.name == DATA]
    reading = trace.covered_seconds(data)
    optimizer = [o for o in trace.operators if o.phase == "optimizer"]
    named = [a for a in trace.annotations if a.phase == "optimizer"]
    backward = trace.covered_seconds(o for o in trace.operators if o.phase == "backward")
    everything = trace.covered_seconds([*trace.operators, *data])
    rest = everything - reading - backward - trace.covered_seconds(optimizer)
    phases = {
        "forward pass and loss": max(rest, 0.0),
        "backward pass": backward,
        "optimizer": trace.covered_seconds([*optimizer, *named]),
        "data": reading,
    }
    phases["Python in between"] = max(trace.wall_seconds - sum(phases.values()), 0.0)
    return {name: seconds / steps for name, seconds in phases.items()}


def core_wait_seconds() -> float:
    """Return for how long this thread was ready to run and had no core, 0 where nobody counts."""
    try:
        text = Path("/proc/thread-self/schedstat").read_text(encoding="ascii")
        return int(text.split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
