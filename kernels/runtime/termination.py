"""SIGTERM in the middle of a step: the step is finished and saved, then the process ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(RuntimeError):  # noqa: N818 - not an error of the run's
    """The run was told to end, its state is saved; raised where SIGTERM ends no process."""


class Termination:
    """Whether the process was told to end.

    Attributes:
        is_asked: SIGTERM came.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: signal._HANDLER = signal.SIG_DFL

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice SIGTERM inside instead of dying of it; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            del number, frame
            self.is_asked = True

        self._before = signal.signal(signal.SIGTERM, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._before)

    def obey(self, message: str) -> None:
        """End as the process would have ended without us.

        Raises:
            Terminated: When whoever handled SIGTERM before lets the process live.
        """
        signal.signal(signal.SIGTERM, self._before)
        os.kill(os.getpid(), signal.SIGTERM)
        raise Terminated(message)
