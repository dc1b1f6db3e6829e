"""Where results go: one small interface, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connectors.defects.inspect.journal import Result
from connectors.defects.inspect.patient_thread import TryLaterError


class SinkError(TryLaterError):
    """A sink does not take results now; they are handed to it again."""


class RefusedResultError(SinkError):
    """A sink will never take one result; those behind it go on.

    Attributes:
        event: Number of the result; all before it were taken.
    """

    def __init__(self, message: str, event: int) -> None:
        super().__init__(message)
        self.event = event


class Sink(Protocol):
    """Takes results in order; the same one may come twice, with the same event number.

    Attributes:
        name: Unique among the sinks of a line, and the same after a restart: its place in the
            journal goes by it.
        batch: Most results at a time.
        position: Number of the newest result that it has, None where it cannot tell.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - told above

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def position(self) -> int | None: ...  # noqa: D102

    def write(self, results: Sequence[Result]) -> None:
        """Take results; they are safe when this returns.

        Raises:
            SinkError: It cannot now.
            RefusedResultError: It never will take one of them.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...
