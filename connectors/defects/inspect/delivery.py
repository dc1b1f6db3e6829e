"""Hands the results of the journal to one sink: in order, each at least once, at its own pace.

A sink that fails keeps its place and is tried again; the line and the other sinks do not notice.
"""

from __future__ import annotations

import logging

from connectors.api.journal import JournalError
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.patient_thread import PatientThread
from connectors.defects.inspect.sink import RefusedResultError, Sink, SinkError
from infra.errors import ConfigurationError

logger = logging.getLogger(__name__)


class Delivery(PatientThread):
    """A thread that feeds one sink.

    Attributes:
        sink: The sink.
    """

    foreseen = (SinkError, JournalError, OSError, ValueError)

    def __init__(self, journal: Journal, sink: Sink, backoff: Backoff | None = None) -> None:
        """Note what the sink has.

        Raises:
            ConfigurationError: It has results that the journal has not made yet: those to come
                would be taken for them.
        """
        super().__init__(f"sink {sink.name}", backoff)
        self.sink = sink
        self._journal = journal
        if (sink.position or 0) > journal.last_event():
            raise ConfigurationError(
                f"{sink.name} has results that {journal.database.path} does not know",
                "Put that file back as it was, or choose another folder of results",
            )
        if sink.position is not None and sink.position != journal.cursor(sink.name):
            journal.advance(sink.name, sink.position)  # the file itself knows what is in it

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
        return True

    def waiting(self) -> int:
        """Return how many results it has not got yet, at most."""
        return max(0, self._journal.last_event() - self._journal.cursor(self.sink.name))

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()
