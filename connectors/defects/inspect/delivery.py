"""Hands the results of the journal to one sink: in order, each at least once, at its own pace.

A sink that fails keeps its place and is tried again; the line and the other sinks do not notice.
"""

from __future__ import annotations

import logging
import threading
import time

from connectors.api.journal import JournalError
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.sinks import RefusedResultError, Sink, SinkError

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
LONGEST_WAIT = 300.0
"""Seconds beyond which no receiver may ask a sink to wait."""


class Delivery(threading.Thread):
    """A thread that feeds one sink.

    Attributes:
        sink: The sink.
        trouble: Why it fails at present, "" while it does not.
    """

    def __init__(self, journal: Journal, sink: Sink, backoff: Backoff | None = None) -> None:
        super().__init__(name=f"sink-{sink.name}", daemon=True)
        self.sink = sink
        self.trouble = ""
        self._journal = journal
        self._backoff = backoff or Backoff()
        self._wake, self._ended = threading.Event(), threading.Event()
        if sink.position is not None and sink.position != journal.cursor(sink.name):
            journal.advance(sink.name, sink.position)  # the file itself knows what is in it

    def run(self) -> None:
        """Deliver until it is ended."""
        while not self._ended.is_set():
            try:
                busy = self.step()
            except (SinkError, JournalError, OSError, ValueError) as error:
                pause = self._failed(error)
                self._ended.wait(pause)
                continue
            except Exception as error:  # a sink's fault must not end the thread unseen
                logger.exception("sink %s", self.sink.name)
                self._ended.wait(self._failed(error))
                continue
            if not busy:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()

    def step(self) -> bool:
        """Hand on the next results; False where there are none.

        Raises:
            SinkError: It did not take them; they are handed on again.
        """
        name = self.sink.name
        results = self._journal.results_after(self._journal.cursor(name), self.sink.batch)
        if not results:
            return False
        try:
            self.sink.write(results)
        except RefusedResultError as error:
            logger.warning("sink %s refuses event %d: %s", name, error.event, error)
            self._journal.advance(name, error.event, refused=str(error)[:500])
        else:
            self._journal.advance(name, results[-1].event)
        self._backoff.reset()
        if self.trouble:
            logger.info("sink %s takes results again", name)
            self.trouble = ""
        return True

    def wake(self) -> None:
        """Tell it that there are new results."""
        self._wake.set()

    def waiting(self) -> int:
        """Return how many results it has not got yet, at most."""
        return max(0, self._journal.last_event() - self._journal.cursor(self.sink.name))

    def drain(self, deadline: float) -> bool:
        """Wait until it has everything; False where the (monotonic) deadline came first."""
        self.wake()
        while self.waiting():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> None:
        """End the thread and close the sink; what it has not got waits in the journal."""
        self._ended.set()
        self._wake.set()
        if self.is_alive():
            self.join()
        self.sink.close()

    def _failed(self, error: Exception) -> float:
        at_least = error.retry_after if isinstance(error, SinkError) else 0.0
        pause = self._backoff.next(min(at_least, LONGEST_WAIT))
        if str(error) != self.trouble:
            self.trouble = str(error)
            logger.warning("sink %s fails, its results wait: %s", self.sink.name, error)
        return pause
