"""Who is changing the watched job: one process at a time, and the watchdog leaves it to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from infra.errors import ServiceError
from infra.services.process import service_lock, start_time
from infra.settings import Settings
from infra.watchdog.config import load_config, save_config

LOCK = "stream-change"
ABANDONED = 0.0
"""In place of the start of a process that lives, but has given up."""


@contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Change the watched job alone; waits for whoever is changing it now.

    Where the block ends by an exception, or with the death of the process, the job counts as left
    half-changed: if it does not run, the watchdog submits it again.
    """
    with service_lock(settings, LOCK):
        pid = os.getpid()
        _note(settings, pid, start_time(pid))
        try:
            yield
        except BaseException:
            _note(settings, pid, ABANDONED)
            raise
        _note(settings, 0, 0.0)


def settle(settings: Settings, holder: int, since: float) -> None:
    """Forget a holder that is gone, unless another process has begun meanwhile."""
    at_once = threading.Event()
    at_once.set()
    with suppress(ServiceError), service_lock(settings, LOCK, at_once):
        config = load_config(settings)
        if (config.holder, config.holder_since) == (holder, since):
            _note(settings, 0, 0.0)


def _note(settings: Settings, pid: int, since: float) -> None:
    save_config(settings, replace(load_config(settings), holder=pid, holder_since=since))
