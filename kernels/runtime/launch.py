"""Starts the processes of a run on this machine, and ends them all when one of them fails.

What ``torchrun`` does for many machines, without its store and its restarts: whoever waits for a
dead process would wait for minutes, so the others are ended, and the message names the dead one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long the others may take to notice by themselves, and to end when they are told to."""


class RankFailedError(RuntimeError):
    """A process of the run failed; the message names it."""


def launch(command: Sequence[str], processes: int, *, threads: int = 1) -> None:
    """Run a command in several processes that form a group, and wait for all.

    Args:
        command: Program and arguments; every process gets the same.
        processes: How many.
        threads: Threads of each for computing.

    Raises:
        ValueError: For fewer than one process.
        RankFailedError: When one failed; all others have ended then, too.
    """
    if processes < 1:
        raise ValueError(f"launch: processes must be at least 1, got {processes}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            list(command),
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": str(threads),
            },
            start_new_session=True,
        )
        for rank in range(processes)
    ]
    try:
        _wait(started)
    finally:
        _end(started)


def _wait(started: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; the first that fails is the cause, whatever the others say then.

    Raises:
        RankFailedError: When one failed.
    """
    while True:
        codes = [process.poll() for process in started]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            # Who was killed died of it; who ended with an error may have lost the killed one.
            rank = min(failed, key=lambda r: (codes[r] or 0) > 0)
            code = codes[rank] or 0
            how = (
                f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            )
            raise RankFailedError(f"rank {rank} of {len(started)} {how}; the others were ended")
        if all(code == 0 for code in codes):
            return
        time.sleep(0.02)


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in started if process.poll() is None]
        for process in alive:
            os.killpg(process.pid, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(p.poll() is None for p in alive):
            time.sleep(0.02)
