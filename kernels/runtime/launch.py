"""Starts the processes of a run on this machine, and leaves none of them behind.

What a process that ended well has started is its own; of all others it ends with them.

What ``torchrun`` does for many machines, without its store and its restarts: whoever waits for a
dead process would wait for minutes, so the others are ended, and the message names the dead one.
SIGTERM and Ctrl-C are passed on: the processes save their step and end, and so does this one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kernels.runtime.termination import Termination

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How long processes that are told to end may take to save their state."""
NOTICE_SECONDS = 5.0
"""How long the others may take to end where one failed: without it they can finish no step."""

Process = subprocess.Popen[bytes]


class RankFailedError(RuntimeError):
    """A process of the run failed; the message names it."""


def launch(
    command: Sequence[str], processes: int, *, threads: int = 1, grace: float = GRACE_SECONDS
) -> None:
    """Run a command in several processes that form a group, and wait for all.

    In the main thread SIGTERM and SIGINT (Ctrl-C) are noticed meanwhile: all processes get
    SIGTERM, on which a run saves its step and ends; those that are left after ``grace`` seconds,
    or at a second Ctrl-C, are killed. Then the signal does to this process what it would have done
    without us. Should this process die (SIGKILL, or SIGTERM while another thread launches), a
    guard beside it does the same to the processes.

    Args:
        command: Program and arguments; every process gets the same.
        processes: How many.
        threads: Threads of each for computing.
        grace: Seconds that they may take to save and end when they are told to.

    Raises:
        ValueError: For fewer than one process, or a negative ``grace``.
        RankFailedError: When one failed; all others have ended then, too.
        Terminated: When a signal told us to end and its handler lets this process live.
    """
    if processes < 1:
        raise ValueError(f"launch: processes must be at least 1, got {processes}")
    if not grace >= 0:
        raise ValueError(f"launch: grace must not be negative, got {grace} seconds")
    termination = Termination(signal.SIGTERM, signal.SIGINT)
    try:
        with termination.noticed():
            _run(list(command), _environments(processes, threads), grace, termination)
    finally:
        if termination.number is not None:
            termination.obey(f"ended by {termination.number.name}; so were {processes} processes")


def _environments(processes: int, threads: int) -> list[dict[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
    }
    ranks = map(str, range(processes))
    return [os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ranks]


def _run(
    command: list[str],
    environments: list[dict[str, str]],
    grace: float,
    termination: Termination,
) -> None:
    """Start a process in each environment; whatever happens, none is left in the end.

    Raises:
        RankFailedError: When one failed.
    """
    started: list[Process] = []
    with _guard(grace) as tell:
        try:
            for environment in environments:
                started.append(subprocess.Popen(command, env=environment, start_new_session=True))
                tell(started[-1].pid)
            _wait(started, termination)
        except RankFailedError:
            # One that was told to end has saved with the others, of which one may still write.
            told = {-signal.SIGTERM, 128 + signal.SIGTERM}
            if not any(process.returncode in told for process in started):
                grace = min(grace, NOTICE_SECONDS)
            raise
        finally:
            _end(started, grace, termination)


@contextmanager
def _guard(grace: float) -> Iterator[Callable[[int], None]]:
    """Have the processes whose numbers it is told ended, should this one be killed inside."""
    program = Path(__file__).with_name("launch_guard.py")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(program), str(os.getpid()), str(grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as guard:

        def tell(pid: int) -> None:
            assert guard.stdin is not None  # noqa: S101 - for types
            try:
                guard.stdin.write(f"{pid}\n".encode())
                guard.stdin.flush()
            except BrokenPipeError:
                logger.warning("the guard is gone: a kill of this process would leave %d", pid)

        try:
            yield tell
        finally:
            guard.kill()
            with suppress(BrokenPipeError):  # of what it was not told any more
                guard.stdin.close() if guard.stdin else None


def _wait(started: list[Process], termination: Termination) -> None:
    """Wait for all, or until we are told to end.

    The first that fails is the cause, whatever the others say then.

    Raises:
        RankFailedError: When one failed.
    """
    while not termination.is_asked:
        codes = [process.poll() for process in started]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            # Who was killed died of it; who ended with an error may have lost the killed one.
            rank = min(failed, key=lambda r: (codes[r] or 0) > 0)
            code = codes[rank] or 0
            how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with {code}"
            raise RankFailedError(f"rank {rank} of {len(started)} {how}; the others were ended")
        if all(code == 0 for code in codes):
            return
        time.sleep(0.02)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def _end(started: list[Process], grace: float, termination: Termination) -> None:
    """Tell those that are left to end, and kill them when they have not."""
    left = [process for process in started if process.poll() is None]
    if left and termination.number is not None:
        logger.warning(
            "%s: %d processes save and end, within %.0f seconds; Ctrl-C kills them at once",
            termination.number.name,
            len(left),
            grace,
        )
    try:
        for process in left:
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while any(process.poll() is None for process in left):
            if time.monotonic() >= deadline or termination.is_urgent:
                break
            time.sleep(0.02)
    finally:
        _kill(started)


def _kill(started: list[Process]) -> None:
    """Kill what is left, and what those that did not end well have started and left behind."""
    for process in started:
        if process.poll() != 0:
            _send(process, signal.SIGKILL)
    for process in started:
        with suppress(subprocess.TimeoutExpired):  # stuck in a driver, where no signal reaches it
            process.wait(NOTICE_SECONDS)


def _send(process: Process, number: signal.Signals) -> None:
    """Kill a process with all that it has started, or tell it alone to end.

    What it has started is its own to end: a loader that loses a worker fails the step that is to
    be saved.
    """
    send = os.killpg if number == signal.SIGKILL else os.kill
    with suppress(ProcessLookupError):
        send(process.pid, number)
