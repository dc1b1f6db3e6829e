"""The time that reasons may take on the way of a decision, whatever the explainer does.

Reasons are made in the thread of the event loop, some 30 us a transaction. An explainer that is
late is broken off by the interval timer of the process: its handler raises within the explainer,
as soon as the interpreter is back from compiled code. After three in a row it rests, so that a slow
explainer does not cost its budget with every request; a single pause of the machine costs no more
than the reasons it fell on.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from connectors.api.metrics import Metrics
from infra.errors import PenstockError

logger = logging.getLogger(__name__)

LATE_IN_A_ROW = 3
REST_SECONDS = 1.0
"""How long an explainer is left alone that was late so many times in a row."""

Why = Literal["late", "failed", "resting"]


class ReasonsLateError(PenstockError):
    """Reasons took longer than they may."""


class ReasonsBudget:
    """Bounds the time of reasons, counts what was left out, and logs each cause once.

    Attributes:
        seconds: What the transactions that are answered together may take for their reasons.
    """

    def __init__(
        self, seconds: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Allow so many seconds."""
        self.seconds = seconds
        self._metrics, self._clock = metrics, clock
        self._rests_until = float("-inf")
        self._late_in_a_row = 0
        self._told: set[tuple[str, str]] = set()
        self._running = False

    @property
    def rests(self) -> bool:
        """Whether the explainer was late too often a moment ago and is not asked."""
        return self._clock() < self._rests_until

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Run explanations; break them off when the time is over.

        In other threads than the main one, where no timer breaks in, nothing is broken off.

        Raises:
            ReasonsLateError: The time was over.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        timer = (0.0, 0.0)
        try:
            try:
                self._running = True
                timer = signal.setitimer(signal.ITIMER_REAL, self.seconds)
                yield
                self._late_in_a_row = 0
            finally:
                self._running = False  # an alarm from here on is one for nobody
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before)

    def left_out(
        self, why: Why, model: str, head: str, rows: int, error: Exception | None = None
    ) -> None:
        """Count transactions without reasons; log an error once for each cause and model.

        Args:
            why: The cause.
            model: Digest of the model.
            head: Its head.
            rows: How many.
            error: What was raised.
        """
        self._metrics.unexplained.add(why, by=rows)
        if why == "late":
            self._late_in_a_row += 1
            if self._late_in_a_row >= LATE_IN_A_ROW:
                self._rests_until = self._clock() + REST_SECONDS
        if error is None or (why, model) in self._told:
            return
        self._told.add((why, model))
        logger.warning(
            "head %r of model %s: %s; the decisions stand without reasons (degraded: no-reasons). "
            "This is logged once for this model, penstock_api_unexplained_total counts on",
            head,
            model,
            f"reasons took more than {self.seconds * 1e3:g} ms" if why == "late" else "no reasons",
            exc_info=error,
        )

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._running:
            self._running = False
            raise ReasonsLateError(
                f"reasons took more than {self.seconds * 1e3:g} ms",
                "Raise PENSTOCK_API_REASONS_MS, or find out what holds the explainer up",
            )
