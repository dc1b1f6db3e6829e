"""A process of another Python that writes and runs files of one format.

Formats whose packages clash with those of the environment live in one of their own, made by
``make export-venv FORMAT=name``. Between the processes lie archives of torch.export and npz files,
both without pickle. A worker has bounds of time and memory, is told apart from a hanging one by the
clock, and ends with whoever started it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compression.formats.protocol import Answer, Arrays, FormatError, first_line

SCRIPTS = Path(__file__).with_name("workers")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one worker.

    Attributes:
        seconds: For one request; the first loads the packages.
        memory: Bytes of its own data.
    """

    seconds: float = 900.0
    memory: int = 12 * 2**30

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.seconds > 0 or self.memory < 2**30:
            raise ValueError("seconds > 0 and at least 1 GiB of memory are needed")


class Worker:
    """A worker that runs; close it, or use it in a ``with`` block."""

    def __init__(self, python: Path, script: str, limits: WorkerLimits | None = None) -> None:
        """Start it.

        Args:
            python: Interpreter of its environment.
            script: Name in ``workers/``.
            limits: Its bounds.

        Raises:
            FormatError: When it does not start.
        """
        self.limits, self.script = limits or WorkerLimits(), script
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-export-")
        self.log = Path(self.folder.name) / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-s", str(SCRIPTS / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder.name,
                env=_environment(Path(self.folder.name)),
                start_new_session=True,
            )
        try:
            self.ask({"do": "bound", "bytes": self.limits.memory})
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to one request.

        Raises:
            FormatError: It failed, took too long or ended; the worker is then gone.
        """
        try:
            self._send(json.dumps(dict(request)).encode() + b"\n")
            reply = json.loads(self._line())
        except (OSError, json.JSONDecodeError) as error:
            raise self._ended() from error
        if "error" in reply:
            raise FormatError(f"{self.script.removesuffix('_worker.py')}: {reply['error']}")
        return dict(reply)

    def run(self, arrays: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], float]:
        """Return outputs and CPU milliseconds of the file that was opened."""
        given, found = (str(Path(self.folder.name) / name) for name in ("in.npz", "out.npz"))
        save(given, arrays)
        reply = self.ask({"do": "run", "inputs": given, "outputs": found})
        with np.load(found, allow_pickle=False) as held:
            return [held[name] for name in sorted(held.files, key=int)], float(reply["ms"])

    def close(self) -> None:
        """End it with whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()
        self.folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _line(self) -> bytes:
        """Read one line before the time is over."""
        until, line = time.monotonic() + self.limits.seconds, b""
        number = self._process.stdout.fileno() if self._process.stdout else -1
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([number], [], [], left)[0]:
                self.close()
                raise FormatError(
                    f"{self.script}: no answer within {self.limits.seconds:g} s; allow more time"
                )
            part = os.read(number, 65536)
            if not part:
                raise OSError("the worker ended")
            line += part
        return line

    def _ended(self) -> FormatError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        code = self._process.returncode
        told = (
            self.log.read_text(errors="replace").strip().splitlines() if self.log.is_file() else []
        )
        reason = first_line(told[-1]) if told else "it said nothing"
        return FormatError(f"{self.script} ended with {code}: {reason}")


@dataclass(slots=True)
class WorkerFile:
    """A file that a worker runs; see `kernels.compression.formats.protocol.Opened`."""

    worker: Worker
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, inputs: Arrays) -> Answer:
        """Return what the file answers."""
        found, ms = self.worker.run([inputs[name] for name in self.inputs])
        if len(found) != len(self.outputs):
            raise FormatError(f"the file has {len(found)} outputs, {len(self.outputs)} expected")
        return Answer(dict(zip(self.outputs, found, strict=True)), ms)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()


def save(path: str, arrays: Sequence[NDArray[Any]]) -> None:
    """Write arrays under their places, as the other end reads them."""
    named: dict[str, Any] = {str(place): one for place, one in enumerate(arrays)}
    np.savez(path, **named)


def _environment(folder: Path) -> dict[str, str]:
    """Return the variables of a worker: its compiled files stay, its scratch files go with it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PENSTOCK_"))}
    return kept | {
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
