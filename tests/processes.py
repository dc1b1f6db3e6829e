"""Waiting for processes and looking after them, for every test that starts some."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


def unmeasured() -> dict[str, str]:
    """Return the environment without coverage, for a process that is to be interrupted.

    Its collector takes a lock without care for signals: Ctrl-C while it notes a new file leaves the
    lock locked, and the next line of another new file waits for good.
    """
    return {name: value for name, value in os.environ.items() if name not in COVERAGE}


def wait_for(condition: Callable[[], object], what: str = "", *, seconds: float = 20.0) -> None:
    """Wait until a condition holds; fails, saying ``what`` did not come, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
