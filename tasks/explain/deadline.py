"""The time that an explanation may take."""

from __future__ import annotations

import time

from tasks.explain.errors import ExplanationTimeoutError


class Deadline:
    """Looks at the clock between calls of the model, which is never interrupted itself."""

    def __init__(self, seconds: float | None) -> None:
        """Begin now; None means no limit."""
        self._seconds = seconds
        self._begun = time.monotonic()

    def check(self, rows_done: int, rows: int) -> None:
        """Go on, or stop.

        Raises:
            ExplanationTimeoutError: When the time is over.
        """
        if self._seconds is not None and time.monotonic() - self._begun > self._seconds:
            raise ExplanationTimeoutError(
                f"{self._seconds:g} s were over with {rows_done} of {rows} rows explained: allow "
                "more seconds, or group features into fewer players"
            )
