"""A thread that takes one step after another and, after a failure, waits longer each time."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from typing import ClassVar

from connectors.defects.inspect.backoff import Backoff

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
"""Between two steps where there was nothing to do, unless it is woken."""
LONGEST_WAIT = 300.0
"""Seconds beyond which nobody may ask to be left alone."""
DRAIN_POLL = 0.02


class TryLaterError(RuntimeError):
    """Something outside does not do its part now.

    Attributes:
        retry_after: Seconds it asks to be left alone.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PatientThread(threading.Thread):
    """Never ends by a failure: what it works on stays where it is and is tried again.

    Attributes:
        trouble: Why it fails at present, "" while it does not.
        foreseen: Errors that are told in one line; others with their trace.
    """

    foreseen: ClassVar[tuple[type[Exception], ...]] = (TryLaterError,)

    def __init__(self, name: str, backoff: Backoff | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.trouble = ""
        self._backoff = backoff or Backoff()
        self._wake, self._ended = threading.Event(), threading.Event()

    @abstractmethod
    def step(self) -> bool:
        """Do what there is to do; False where there was nothing."""

    @abstractmethod
    def waiting(self) -> int:
        """Return how much is left to do, at most."""

    def close(self) -> None:
        """Let go of what it holds; called once the thread has ended."""

    def run(self) -> None:
        """Take steps until it is ended."""
        while not self._ended.is_set():
            try:
                busy = self.step()
            except Exception as error:  # noqa: BLE001 - told, and what waits is tried again
                self._ended.wait(self._failed(error))
                continue
            self._backoff.reset()
            if self.trouble:
                logger.info("%s goes on", self.name)
                self.trouble = ""
            if not busy:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()

    def wake(self) -> None:
        """Tell it that there is something to do."""
        self._wake.set()

    def drain(self, deadline: float) -> bool:
        """Wait until nothing is left to do; False where the (monotonic) deadline came first."""
        self.wake()
        while self.waiting():
            if time.monotonic() >= deadline:
                return False
            time.sleep(DRAIN_POLL)
        return True

    def end(self) -> None:
        """End the thread after the step at hand; what is left waits for the next start."""
        self._ended.set()
        self._wake.set()
        if self.is_alive():
            self.join()
        self.close()

    def _failed(self, error: Exception) -> float:
        """Tell of a failure, each once; returns the seconds to wait."""
        if not isinstance(error, self.foreseen):
            logger.error("%s", self.name, exc_info=error)
        at_least = error.retry_after if isinstance(error, TryLaterError) else 0.0
        pause = self._backoff.next(min(at_least, LONGEST_WAIT))
        if str(error) != self.trouble:
            self.trouble = str(error)
            logger.warning("%s waits and tries again: %s", self.name, error)
        return pause
