"""Ctrl-C and SIGTERM: this process ends in order, with the servers it still needs for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
REPEAT_SECONDS = 1.0
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which everything between here and the command treats like Ctrl-C."""


class Interrupts:
    """Remembers Ctrl-C and SIGTERM, for libraries may turn them into errors of their own.

    Attributes:
        number: The first of these signals that came, or None.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._told = 0.0

    @property
    def code(self) -> int:
        """Exit code as shells report it: 128 and the signal's number."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def word(self) -> str:
        """What happened, for people."""
        return WORDS[self.number or signal.SIGINT]

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signature of a handler
        """Remember the signal and raise ``KeyboardInterrupt``, as Python does for Ctrl-C.

        One sent to a process and to its group comes twice; the second must not disturb the end.
        """
        before, self._told = self._told, time.monotonic()
        if self.number is None:
            self.number = signal.Signals(number)
        elif self._told - before < REPEAT_SECONDS:
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def watch_interrupts() -> Iterator[Interrupts]:
    """Watch for both; does nothing outside the main thread or where others handle them."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    ours = [number for number, usual in DEFAULTS.items() if signal.getsignal(number) == usual]
    for number in ours:
        signal.signal(number, interrupts.handle)
    try:
        yield interrupts
    finally:
        for number in ours:
            signal.signal(number, DEFAULTS[number])


def shield_temporary_server(log: Path) -> None:
    """Keep signals from Prefect's temporary server, its tracebacks from the terminal.

    A terminal sends Ctrl-C to the whole process group. Without its server the flow could not
    record its end, and would report refused connections instead. So the server gets a group of
    its own; Prefect stops it at the end, and it stops itself where this process was killed.

    Args:
        log: file for what the server says.
    """
    from prefect.server.api.server import SubprocessASGIServer

    def start(server: SubprocessASGIServer) -> subprocess.Popen[bytes]:
        return start_temporary_server(server.port, log)

    # Prefect has no setting for it.
    setattr(SubprocessASGIServer, "_run_uvicorn_command", start)  # noqa: B010 - a private method


def start_temporary_server(port: int | None, log: Path) -> subprocess.Popen[bytes]:
    """Start what ``SubprocessASGIServer`` of the pinned Prefect starts, under our guard."""
    from prefect.settings import get_current_settings

    log.parent.mkdir(parents=True, exist_ok=True)
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    marks = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    marks["PREFECT__SERVER_FINAL"] = "1"
    options = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "error")
    guard = ("-m", "flows.cli.temporary_server", str(os.getpid()))
    application = ("--factory", "prefect.server.api.server:create_app", "--lifespan", "on")
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *guard, *application, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **marks, **settings},
            process_group=0,
        )
