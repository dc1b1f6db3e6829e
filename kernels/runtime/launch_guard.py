"""Ends the processes of a run whose launching process was killed, and so cannot do it itself.

``python launch_guard.py PARENT GRACE`` runs beside them, by the standard library alone, and reads
their numbers from its input. Linux could send them a signal instead (``PR_SET_PDEATHSIG``), but a
single one: SIGTERM leaves behind what hangs, SIGKILL lets nothing be saved, and what they have
started gets neither.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.2


def guard(parent: int, grace: float) -> None:
    """Wait until the parent is gone, then end the process groups that it has left behind.

    Args:
        parent: Process id of the one that launched them, and us.
        grace: Seconds that they may take to save and end.
    """
    # A number may be another process's by then.
    left = [(pid, birth) for pid, birth in _told(parent) if birth and _birth(pid) == birth]
    # What they have started is their own to end: a loader that loses a worker fails the last step.
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(_birth(pid) == birth for pid, birth in left):
        time.sleep(POLL_SECONDS)
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _told(parent: int) -> list[tuple[int, str]]:
    """Read the leaders of the groups, each with its birth, until the parent is gone."""
    found: list[tuple[int, str]] = []
    text = b""
    while True:
        if select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
            read = os.read(sys.stdin.fileno(), 4096)
            if not read:
                return found
            *lines, text = (text + read).split(b"\n")
            found += [(int(line), _birth(int(line))) for line in lines]
        elif os.getppid() != parent:  # what it has forked may hold our input open
            return found


def _birth(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; "" for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # who ends a whole tree of processes means the others
    guard(int(sys.argv[1]), float(sys.argv[2]))
