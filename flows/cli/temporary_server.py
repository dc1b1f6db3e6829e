"""Runs uvicorn for a command and ends with it, however that ends: Prefect's temporary server."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0


def end_with(parent: int) -> None:
    """End this process once the parent is gone; first in order, then at once.

    Linux could send a signal instead (``PR_SET_PDEATHSIG``), but sends it already when the thread
    that started this process ends.

    Args:
        parent: process id of the command.
    """
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Run uvicorn; the first argument is the parent, the others are uvicorn's."""
    parent = int(sys.argv.pop(1))
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    import uvicorn

    uvicorn.main()


if __name__ == "__main__":
    main()
