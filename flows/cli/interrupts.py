"""Ctrl-C: this process ends in order, with the servers it still needs for that."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupts:
    """Remembers Ctrl-C, for libraries may turn it into an error of their own.

    Attributes:
        seen: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.seen = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal and raise ``KeyboardInterrupt``, as Python does."""
        self.seen = True
        signal.default_int_handler(number, frame)


@contextmanager
def watch_interrupts() -> Iterator[Interrupts]:
    """Watch for Ctrl-C; does nothing outside the main thread or where others handle it."""
    interrupts = Interrupts()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def shield_temporary_server(log: Path) -> None:
    """Keep Ctrl-C from Prefect's temporary server, and its tracebacks from the terminal.

    A terminal sends Ctrl-C to the whole process group. Without its server the flow could not
    record its end, and would report refused connections instead. A child inherits the signal
    mask and the standard streams; Prefect stops it at the end.

    Args:
        log: file for what the server says.
    """
    from prefect.server.api.server import SubprocessASGIServer

    start = SubprocessASGIServer._run_uvicorn_command  # noqa: SLF001 - Prefect has no setting for it
    if hasattr(start, "shielded"):
        return

    def shielded(server: SubprocessASGIServer) -> object:
        log.parent.mkdir(parents=True, exist_ok=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        terminal = os.dup(2)
        try:
            with log.open("wb") as handle:
                os.dup2(handle.fileno(), 2)
                return start(server)
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    shielded.shielded = True  # type: ignore[attr-defined]  # marks it for the next call
    setattr(SubprocessASGIServer, "_run_uvicorn_command", shielded)  # noqa: B010 - as above
