"""SIGTERM in the middle of a step: the step is finished and saved, then the process ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REPEAT_SECONDS = 1.0
"""A signal sent to a process and to its group comes twice; a person asks again later than that."""


class Terminated(RuntimeError):  # noqa: N818 - not an error of the run's
    """The run was told to end, its state is saved; raised where the signal ends no process."""


class Termination:
    """Whether the process was told to end.

    Attributes:
        number: The signal that came first, None while none has.
        is_urgent: Ctrl-C came again: whoever waits shall wait no longer.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        """Prepare.

        Args:
            numbers: Signals that tell it; none for SIGTERM alone.
        """
        self.number: signal.Signals | None = None
        self.is_urgent = False
        self._numbers = numbers or (signal.SIGTERM,)
        self._since = 0.0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice the signals inside instead of dying of them; only the main thread can.

        Ctrl-C stays ignored where it is, as shells have it for what they start in the background,
        and a handler that is not Python's, which could not be put back, stays in its place.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {}
        for number in self._numbers:
            before = signal.getsignal(number)
            is_ignored = number == signal.SIGINT and before == signal.SIG_IGN
            if before is not None and not is_ignored:
                self._before[number] = before
        try:
            for number in self._before:
                signal.signal(number, self._on_signal)
            yield
        finally:
            for number, before in self._before.items():
                signal.signal(number, before)

    def obey(self, message: str) -> None:
        """End as the process would have ended without us.

        Raises:
            Terminated: When whoever handled the signal before lets the process live.
        """
        number = self.number or signal.SIGTERM  # another process of the group may have been asked
        if number in self._before:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        raise Terminated(message)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = signal.Signals(number), now
        elif number == signal.SIGINT and now - self._since > REPEAT_SECONDS:
            self.is_urgent = True
