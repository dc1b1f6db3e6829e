"""``python -m infra.watchdog --port N``: watch the stream of this home until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from infra.errors import PenstockError
from infra.settings import get_settings
from infra.watchdog.actions import ServiceActions
from infra.watchdog.config import load_config
from infra.watchdog.loop import Watchdog
from infra.watchdog.report import ReportServer


def main() -> int:
    """Run the watchdog; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.watchdog", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port of its pages")
    arguments = parser.parse_args()
    layout = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout, stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = get_settings()
        watchdog = Watchdog(settings, load_config(settings), ServiceActions(settings))
        server = ReportServer(arguments.port)
    except (PenstockError, OSError) as error:
        logging.getLogger(__name__).critical("%s", error)
        return 1
    server.report = watchdog.report
    server.start()
    watchdog.run(stop)
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
