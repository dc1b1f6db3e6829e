"""Finds the process of a group that hangs: which, where in its code, and since when.

When one process of a group stops, all others wait for it in a collective call, for as long as the
timeout of the group, and all of them look alike. Here every process has a thread that writes down,
in a folder they share, at which step it is and what its main thread is doing. The one that neither
moves on nor waits for others is the one that hangs; its Python stack is written beside.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import linecache
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Generic, Self, TextIO, TypeVar

if TYPE_CHECKING:
    from kernels.runtime.source import Batches

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
HANG_EXIT_CODE = 75
WAITING_FILES = ("/torch/distributed/", "/kernels/runtime/group.py")
MISSED_BEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HangConfig:
    """When a process counts as hanging.

    Attributes:
        timeout: Seconds without a new step. Shorter than the group's own timeout, longer than the
            longest step, evaluation and checkpoint included.
        interval: Seconds between two entries of a process.
        end: End the processes when one hangs; else it is only told.
    """

    timeout: float = 60.0
    interval: float = 1.0
    end: bool = True

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 < self.interval <= self.timeout / 4:
            raise ValueError(
                f"hang.interval is {self.interval} and hang.timeout {self.timeout} "
                "seconds; the interval must be positive, the timeout at least four of them"
            )


@dataclass(frozen=True, slots=True)
class Status:
    """What a process wrote down of itself.

    Attributes:
        rank: Its number.
        pid: Its process id.
        host: Its machine.
        step: Steps begun.
        since: When it last moved on, Unix time.
        now: When this was written.
        waits: It is in a collective call.
        doing: The call, or the function of its own code, with file and line.
        ended: It left the detector in good order.
    """

    rank: int
    pid: int
    host: str
    step: int
    since: float
    now: float
    waits: bool = False
    doing: str = ""
    ended: bool = False


class HangDetector:
    """Watches this process and reads what the others write; a context manager.

    One at a time in a process: it uses ``faulthandler.dump_traceback_later``.

    Attributes:
        message: What was found, "" while nothing is.
    """

    def __init__(
        self,
        folder: Path,
        config: HangConfig | None = None,
        *,
        rank: int | None = None,
        size: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            folder: Folder that all processes see; empty of entries of other runs.
            config: When a process counts as hanging.
            rank: Number of this process; None takes it from the environment.
            size: How many there are; None as well.
        """
        self.folder, self.config = folder, config or HangConfig()
        self._rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self._size = int(os.environ.get("WORLD_SIZE", "1")) if size is None else size
        self.message = ""
        self._main = threading.main_thread().ident
        self._status = Status(self._rank, os.getpid(), socket.gethostname(), 0, 0.0, 0.0)
        self._stack: TextIO | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang detector", daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._status = replace(self._status, since=time.time())
        self._write(self._status)
        self._stack = self.stack_path(self._rank).open("w", encoding="utf-8")
        self._arm()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._stack is not None:
            self._stack.close()
        path = self.stack_path(self._rank)
        if not path.stat().st_size:
            path.unlink()
        self._write(replace(self._status, now=time.time(), ended=True))

    def beat(self, step: int) -> None:
        """Tell that this process moves on.

        Args:
            step: Steps begun.
        """
        self._status = replace(self._status, step=step, since=time.time())

    def watching(self, batches: Batches[Batch]) -> Batches[Batch]:
        """Return a source that tells at every batch that this process moves on."""
        return _Watched(batches, self)

    def stack_path(self, rank: int) -> Path:
        """Return the file of a process's Python stack."""
        return self.folder / f"rank-{rank}.stack"

    def _arm(self) -> None:
        """Put off the moment at which the stack is written by a thread that needs no Python.

        Code that lets no Python run stops the detector's own thread as well.
        """
        faulthandler.dump_traceback_later(self.config.timeout, file=self._stack or sys.stderr)

    def _watch(self) -> None:
        while not self._stop.wait(self.config.interval):
            self._arm()
            status = self._status
            waits, doing = told(sys._current_frames().get(self._main or 0))  # noqa: SLF001 - documented
            now = time.time()
            self._write(replace(status, now=now, waits=waits, doing=doing))
            if now - status.since < self.config.timeout or self.message:
                continue
            if not waits:
                faulthandler.dump_traceback(self._stack or sys.stderr)
            self.message = judged(read_statuses(self.folder), self._size, now, self.config)
            if self.message:
                self._tell(waits=waits)
        faulthandler.cancel_dump_traceback_later()

    def _tell(self, *, waits: bool) -> None:
        written = [p for p in self.folder.glob("rank-*.stack") if p.stat().st_size]
        stacks = sorted(map(str, written))
        stack = f"; Python stack: {', '.join(stacks)}" if stacks else ""
        logger.critical("%s%s", self.message, stack)
        with contextlib.suppress(OSError):  # a full disk is no reason to hang on
            (self.folder / "hang.txt").write_text(self.message + "\n", encoding="utf-8")
        if not self.config.end:
            return
        # Whoever hangs ends first, so that who started the processes names the right one.
        if waits:
            time.sleep(MISSED_BEATS * self.config.interval)
        # The main thread is where no exception reaches it.
        os._exit(HANG_EXIT_CODE)

    def _write(self, status: Status) -> None:
        path = self.folder / f"rank-{self._rank}.json"
        beside = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk is no reason to end a run
            beside.write_text(json.dumps(asdict(status)), encoding="utf-8")
            beside.replace(path)


class _Watched(Generic[Batch]):
    def __init__(self, batches: Batches[Batch], detector: HangDetector) -> None:
        self._batches, self._detector = batches, detector

    def __call__(self, index: int) -> Batch:
        self._detector.beat(index + 1)
        return self._batches(index)


def told(frame: FrameType | None) -> tuple[bool, str]:
    """Return whether a thread waits for other processes, and what it does.

    Args:
        frame: Its innermost frame.
    """
    own, call = "", ""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        line = linecache.getline(file, frame.f_lineno)
        if any(part in file for part in WAITING_FILES) or ".wait()" in line:
            call = call or name
        is_library = "site-packages" in file or file.startswith((sys.base_prefix, "<"))
        if not own and not is_library and not any(part in file for part in WAITING_FILES):
            own = f"{name} ({Path(file).name}:{frame.f_lineno})"
        frame = frame.f_back
    if call:
        return True, f"{call}, called by {own}" if own else call
    return False, own or "no code of its own"


def read_statuses(folder: Path) -> list[Status]:
    """Return what processes wrote down, by rank; what is damaged is left out."""
    found = []
    for path in folder.glob("rank-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Status(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda status: status.rank)


def judged(statuses: Iterable[Status], size: int, now: float, config: HangConfig) -> str:
    """Return which processes hang, where and since when, "" if none does (yet).

    Args:
        statuses: What they wrote down.
        size: How many there are.
        now: Unix time.
        config: When one counts as hanging.
    """
    known = {status.rank: status for status in statuses}
    silent = MISSED_BEATS * config.interval
    words, waiting = [], []
    for rank in range(size):
        status = known.get(rank)
        who = f"rank {rank} of {size}"
        if status is None:
            words.append(f"{who} never began")
            continue
        since = f"since {time.strftime('%H:%M:%S', time.localtime(status.since))}"
        since += f" ({now - status.since:.0f} s) at step {status.step}"
        if status.ended:
            words.append(f"{who} has ended after step {status.step}, and others still wait")
        elif now - status.now > silent:
            words.append(f"{who} hangs {since}: {_silence(status)}; last in {status.doing}")
        elif status.waits:
            waiting.append(f"rank {rank} in {status.doing}")
        elif now - status.since >= config.timeout / 2:
            words.append(f"{who} hangs {since} in {status.doing}")
    if words and waiting:
        return f"{'; '.join(words)}; waiting for it: {', '.join(waiting)}"
    if words:
        # All that are left have ended, or are busy: nobody waits in vain.
        return "; ".join(words) if any(" hangs " in w or " never " in w for w in words) else ""
    if len(waiting) == size:
        return (
            f"all {size} processes wait for each other ({', '.join(waiting)}): their calls do not "
            "match, or a message was lost"
        )
    return ""


def _silence(status: Status) -> str:
    """Return why a process does not even write."""
    if status.host != socket.gethostname():
        return "nothing is heard of it; is its machine up?"
    try:
        text = Path(f"/proc/{status.pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return f"its process {status.pid} is gone"
    state = text.rpartition(")")[2].split()[0]
    if state in {"T", "t"}:
        return f"its process {status.pid} was stopped (SIGSTOP); kill -CONT {status.pid}"
    if state == "Z":
        return f"its process {status.pid} is dead"
    return f"its process {status.pid} runs compiled code that does not let Python run"
