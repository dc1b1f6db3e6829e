"""Processes of a run that share what one has imported: start-up would take longer than the rest."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable


def forked(processes: int, work: Callable[[], None]) -> None:
    """Run a function in several processes that may form a group, and wait for all.

    Call it from a program that has computed nothing yet: threads do not outlive a fork.

    Args:
        processes: How many.
        work: What each does.

    Raises:
        RuntimeError: When one failed; the others are ended then.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sys.stdout.flush()
    # What is there is never collected: else every child would copy all pages of it.
    gc.collect()
    gc.freeze()
    ranks = {}
    for rank in range(processes):
        child = os.fork()
        if not child:
            _child(rank, processes, port, work)
        ranks[child] = rank
    try:
        while ranks:
            child, status = os.wait()
            rank = ranks.pop(child)
            if status:
                raise RuntimeError(f"rank {rank} failed: {os.waitstatus_to_exitcode(status)}")
    finally:
        for child in ranks:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _child(rank: int, processes: int, port: int, work: Callable[[], None]) -> None:
    code = 1
    try:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - told here, for nobody else can
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
