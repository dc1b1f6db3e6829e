"""Requests that wait for one model are run together, as long as no one waits too long for it.

A run over many rows costs little more than one over a single row, so what has gathered while the
model was busy goes as one batch. When the model is idle, the first request waits ``max_wait_ms`` at
most for others. Only requests of equal trailing shapes share a batch, rows only where the file's
first dimension is free and its rows know nothing of each other. What would wait in a full queue, or
has waited longer than an answer may take, is turned away at once: late answers help nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from connectors.api.problem import Problem
from connectors.model_server.onnx_model import RunError
from connectors.model_server.tensors import Array

logger = logging.getLogger(__name__)

Answer = dict[str, Array]


class Runs(Protocol):
    """What is run: `OnnxModel`."""

    def run(self, feeds: Mapping[str, Array], outputs: tuple[str, ...] = ()) -> Answer:
        """Return outputs by name."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How requests are put together.

    Attributes:
        max_rows: Most rows of a batch; 1 turns batching off.
        max_wait_ms: Longest time that a request waits for others while the model is idle.
        max_queue: Most requests that wait.
        queue_ms: Longest wait in the queue; who waited longer is turned away.
        runs: Most batches of one model version at the same time.
    """

    max_rows: int = 32
    max_wait_ms: float = 1.0
    max_queue: int = 256
    queue_ms: float = 1_000.0
    runs: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        if self.max_rows < 1 or self.max_queue < 1 or self.runs < 1:
            raise ValueError("batches: max_rows, max_queue and runs must be at least 1")
        if self.max_wait_ms < 0 or self.queue_ms <= 0:
            raise ValueError("batches: max_wait_ms must not be negative, queue_ms above 0")


class BatchEvents(NamedTuple):
    """Who is told what happens.

    Attributes:
        ran: ``(requests, rows, seconds)`` of a batch.
        waited: Seconds that a request waited before its batch began.
    """

    ran: Callable[[int, int, float], None]
    waited: Callable[[float], None]


class Slots:
    """How many batches run at the same time, over all models."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[Batcher] = deque()

    def take(self, batcher: Batcher) -> bool:
        """Take a slot; without one, the batcher is pumped again when one is free."""
        if self._free:
            self._free -= 1
            return True
        if batcher not in self._waiting:
            self._waiting.append(batcher)
        return False

    def give(self) -> None:
        """Give a slot back; the batcher that has waited longest comes first."""
        self._free += 1
        while self._free and self._waiting:
            self._waiting.popleft().pump()


@dataclass(slots=True, eq=False)
class _Waiting:
    feeds: Mapping[str, Array]
    outputs: tuple[str, ...]
    rows: int
    arrived: float
    answer: asyncio.Future[Answer]


class Batcher:
    """The queue of one model version; lives in the event loop, runs in threads.

    Attributes:
        running: Batches under way.
        depth: Requests that wait.
    """

    def __init__(
        self,
        model: Runs,
        config: BatchConfig,
        slots: Slots,
        executor: Executor,
        events: BatchEvents,
        *,
        together: bool,
    ) -> None:
        """Stand before a model.

        Args:
            model: What runs.
            config: Bounds.
            slots: Shared by all models.
            executor: Threads, at least as many as slots.
            events: Who is told.
            together: Whether requests may share a batch.
        """
        self._model, self._config, self._slots = model, config, slots
        self._executor, self._events = executor, events
        self._together = together and config.max_rows > 1
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._alone = 0
        self.running = self.depth = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.depth and not self.running

    def admit(self) -> None:
        """Turn a request away before any work is done for it, when the queue is full.

        Raises:
            Problem: 503.
        """
        if self.depth >= self._config.max_queue:
            raise _overloaded(f"{self.depth} requests wait already")

    async def run(self, feeds: Mapping[str, Array], outputs: tuple[str, ...] = ()) -> Answer:
        """Return the outputs for one request.

        Raises:
            Problem: 503, there is too much to do.
            RunError: The values do not suit the model.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        first = next(iter(feeds.values()))
        rows = first.shape[0] if self._together and first.ndim else 1
        waiting = _Waiting(feeds, outputs, rows, perf_counter(), loop.create_future())
        self._queues.setdefault(self._key(feeds, outputs), deque()).append(waiting)
        self.depth += 1
        if self._soon is None:  # at the end of this round of the loop, with all that came in it
            self._soon = loop.call_soon(self.pump)
        try:
            return await waiting.answer
        finally:
            waiting.answer.cancel()  # who has gone away is not run

    def pump(self) -> None:
        """Begin what can begin."""
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None
        while self.depth and self.running < self._config.runs:
            key, begins = self._next()
            now = perf_counter()
            if begins > now:
                loop = asyncio.get_running_loop()
                self._later = loop.call_later(begins - now, self.pump)
                return
            if not self._slots.take(self):
                return
            batch = self._gather(key, now)
            if batch:
                self._begin(batch)
            else:
                self._slots.give()

    def _key(self, feeds: Mapping[str, Array], outputs: tuple[str, ...]) -> Hashable:
        if not self._together or len({array.shape[:1] for array in feeds.values()}) > 1:
            self._alone += 1
            return self._alone
        return (outputs, *((name, feeds[name].shape[1:]) for name in sorted(feeds)))

    def _next(self) -> tuple[Hashable, float]:
        """Return the queue that is served next, and when."""
        full = self._config.max_rows
        patience = self._config.max_wait_ms / 1000 if self._together else 0.0
        best: tuple[float, Hashable] | None = None
        for key, queue in self._queues.items():
            whole = isinstance(key, int) or sum(one.rows for one in queue) >= full
            begins = queue[0].arrived + (0.0 if whole else patience)
            if best is None or begins < best[0]:
                best = begins, key
        if best is None:
            raise RuntimeError("a queue was counted that is not there")
        return best[1], best[0]

    def _gather(self, key: Hashable, now: float) -> list[_Waiting]:
        """Take a batch out of a queue, turning away who has waited too long."""
        queue, batch, rows = self._queues[key], list[_Waiting](), 0
        while queue and (not batch or rows + queue[0].rows <= self._config.max_rows):
            one = queue.popleft()
            self.depth -= 1
            waited = now - one.arrived
            if one.answer.done():
                continue
            if waited * 1000 > self._config.queue_ms:
                one.answer.set_exception(_overloaded(f"this one waited {waited:.1f} s"))
                continue
            self._events.waited(waited)
            batch.append(one)
            rows += one.rows
        if not queue:
            del self._queues[key]
        return batch

    def _begin(self, batch: list[_Waiting]) -> None:
        self.running += 1
        loop = asyncio.get_running_loop()
        began = perf_counter()
        future = loop.run_in_executor(self._executor, run_batch, self._model, batch)

        def done(made: asyncio.Future[list[Answer | RunError]]) -> None:
            self.running -= 1
            self._events.ran(len(batch), sum(w.rows for w in batch), perf_counter() - began)
            _deliver(batch, made)
            self._slots.give()
            self.pump()

        future.add_done_callback(done)


def run_batch(model: Runs, batch: list[_Waiting]) -> list[Answer | RunError]:
    """Run some requests as one; if that fails, each alone, so that one harms no other."""
    if len(batch) == 1:
        return [_run_alone(model, batch[0])]
    outputs = batch[0].outputs
    feeds = {
        name: np.concatenate([waiting.feeds[name] for waiting in batch]) for name in batch[0].feeds
    }
    try:
        made = model.run(feeds, outputs)
    except RunError:
        return [_run_alone(model, waiting) for waiting in batch]
    answers: list[Answer | RunError] = []
    at = 0
    for waiting in batch:
        rows = slice(at, at + waiting.rows)
        answers.append({name: array[rows] for name, array in made.items()})
        at = rows.stop
    return answers


def _run_alone(model: Runs, waiting: _Waiting) -> Answer | RunError:
    try:
        return model.run(waiting.feeds, waiting.outputs)
    except RunError as error:
        return error


def _deliver(batch: list[_Waiting], made: asyncio.Future[list[Answer | RunError]]) -> None:
    error = made.exception()
    answers = [error] * len(batch) if error is not None else made.result()
    for waiting, answer in zip(batch, answers, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(answer, BaseException):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)


def _overloaded(why: str) -> Problem:
    return Problem(
        503,
        "overloaded",
        f"the model has more to do than it can: {why}",
        "Send it again after a second, and spread the load",
        headers={"retry-after": "1"},
    )
