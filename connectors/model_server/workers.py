"""Several processes on one socket: started, watched, started again, and counted together.

The first process binds the socket and hands it on, so that a taken port is told at once, no
connection is lost when a process ends, and port 0 works. Each process opens every model. A pipe
whose other end the first process holds tells them when it is gone, however it went. What each one
counts lies as a file in a folder they share; whichever is asked answers for all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.model_server.metrics import exposition
from infra.errors import ServiceError

if TYPE_CHECKING:
    from types import FrameType

    from connectors.model_server.metrics import ModelMetrics
    from connectors.model_server.settings import ModelServerSettings

logger = logging.getLogger(__name__)

VARIABLE = "PENSTOCK_MODEL_WORKER"
"""Number, socket, pipe and folder of a process, handed on by the one that starts it."""

METRICS_SECONDS = 1.0
AGAIN_SECONDS = 1.0
QUICK_SECONDS = 5.0
MOST_QUICK_ENDS = 5
"""Ends within `QUICK_SECONDS` of the start, one after the other, before all is given up."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of several.

    Attributes:
        number: Its number, from 0.
        listener: Descriptor of the socket.
        alive: Descriptor of the pipe that ends with the first process.
        folder: Where its figures go.
    """

    number: int
    listener: int
    alive: int
    folder: Path

    def socket(self) -> socket.socket:
        """Return the socket all processes share."""
        return socket.socket(fileno=self.listener)

    def render(self, metrics: ModelMetrics) -> Callable[[], bytes]:
        """Return what answers with the figures of all processes; others' are a second old."""

        def rendered() -> bytes:
            found = {str(self.number): metrics.families()}
            for path in self.folder.glob("*.json"):
                if path.stem != str(self.number):
                    with suppress(OSError, ValueError):
                        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            return exposition(dict(sorted(found.items())))

        return rendered

    async def run(self, metrics: ModelMetrics) -> None:
        """Write its figures, and end when the first process is gone; until it is cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.alive, self._orphaned)
        path = self.folder / f"{self.number}.json"
        draft = path.with_suffix(".draft")
        while True:
            with suppress(OSError):
                draft.write_text(json.dumps(metrics.families()), encoding="utf-8")
                draft.replace(path)
            await asyncio.sleep(METRICS_SECONDS)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self.alive)
        os.kill(os.getpid(), signal.SIGTERM)


def worker_of(environment: Mapping[str, str]) -> Worker | None:
    """Return which process of several this is; None: the only one, or the first."""
    said = environment.get(VARIABLE)
    if said is None:
        return None
    number, listener, alive, folder = json.loads(said)
    return Worker(number, listener, alive, Path(folder))


def supervise(settings: ModelServerSettings, listener: socket.socket) -> None:
    """Run processes on a bound socket until a signal comes.

    Raises:
        ServiceError: They end as soon as they are started.
    """
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-model-workers-") as folder:
            _Supervisor(settings, listener.fileno(), reading, folder).run()
    finally:
        os.close(reading)
        os.close(writing)


class _Supervisor:
    """Starts processes and looks after them."""

    def __init__(
        self, settings: ModelServerSettings, listener: int, alive: int, folder: str
    ) -> None:
        self._settings, self._listener, self._alive = settings, listener, alive
        self._folder = folder
        self._processes: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._again: dict[int, float] = {}
        self._ending = False
        self._quick_ends = 0

    def run(self) -> None:
        """Run until a signal comes; see `supervise`."""
        before = {
            number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            for number in range(self._settings.workers):
                self._start(number)
            while not self._ending:
                self._look()
                time.sleep(0.1)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _start(self, number: int) -> None:
        said = json.dumps([number, self._listener, self._alive, self._folder])
        options = self._settings.model_dump(mode="json", exclude_none=True)
        variables = {
            f"{self._settings.model_config['env_prefix']}{name.upper()}": str(value)
            for name, value in options.items()
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors.model_server.server"],
            env={**os.environ, **variables, VARIABLE: said},
            pass_fds=(self._listener, self._alive),
            start_new_session=True,  # Ctrl-C reaches the first alone, which ends the others
        )
        self._processes[number] = process, time.monotonic()

    def _look(self) -> None:
        now = time.monotonic()
        for number, (process, began) in list(self._processes.items()):
            code = process.poll()
            if code is None:
                if now - began > QUICK_SECONDS:
                    self._quick_ends = 0
                continue
            del self._processes[number]
            self._quick_ends += now - began < QUICK_SECONDS or code == 1
            logger.error("process %d of the model server ended with %d", number, code)
            if self._quick_ends >= min(MOST_QUICK_ENDS, self._settings.workers):
                raise ServiceError(
                    f"processes of the model server end as soon as they start (code {code})",
                    "Read what they wrote above, or try it with one worker",
                )
            self._again[number] = now + AGAIN_SECONDS
        for number, due in list(self._again.items()):
            if due <= now:
                del self._again[number]
                self._start(number)

    def _stop(self) -> None:
        for process, _ in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + self._settings.stop_seconds + 5
        for process, _ in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
