"""What the store's writer tells about itself: metrics, health pages, a health file."""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from infra.files import write_atomically
from infra.settings import HOST

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

STALE_SECONDS = 10.0
"""Without a turn of the loop for so long, the writer hangs."""

FRESHNESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WRITING = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class WriterStatus:
    """Figures of one writer, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self.records = Counter(
            "penstock_store_records",
            "Messages by what became of them: applied, older, dead, tombstone.",
            ["result"],
            registry=self.registry,
        )
        self.freshness = Histogram(
            "penstock_store_freshness_seconds",
            "From the publication of a record until the store had it.",
            buckets=FRESHNESS,
            registry=self.registry,
        )
        self.writing = Histogram(
            "penstock_store_write_seconds",
            "Time of one write of the store.",
            buckets=WRITING,
            registry=self.registry,
        )
        self.lag = Gauge(
            "penstock_store_lag",
            "Messages of the topic, or files of the folder, that wait.",
            registry=self.registry,
        )
        self.entities = Gauge(
            "penstock_store_entities", "Entities with state.", ["kind"], registry=self.registry
        )
        self.available = Gauge(
            "penstock_store_available", "Whether the store takes writes.", registry=self.registry
        )
        self.turned = 0.0
        self.source_ready = False
        self.trouble = ""

    def turn(self) -> None:
        """Note that the loop goes on."""
        self.turned = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether the loop turned lately."""
        return time.monotonic() - self.turned < STALE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether records reach the store."""
        return self.live and self.source_ready and not self.trouble

    def report(self) -> str:
        """Return the state as JSON, for the pages and the file."""
        said = {
            "ready": self.ready,
            "live": self.live,
            "trouble": self.trouble,
            "time": round(time.time(), 3),
        }
        return json.dumps(said)

    def save(self, path: Path) -> None:
        """Write the state to the health file; a disk without room must not stop the writer."""
        try:
            write_atomically(path, self.report())
        except OSError as error:
            logger.debug("%s not written: %s", path, error)


def serve_status(status: WriterStatus, port: int) -> ThreadingHTTPServer:
    """Serve ``/metrics``, ``/health/live`` and ``/health/ready`` on loopback; returns the server.

    Raises:
        OSError: When the port is taken.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/metrics":
                self._answer(200, generate_latest(status.registry), CONTENT_TYPE_LATEST)
            elif path in {"/health/live", "/health/ready"}:
                good = status.ready if path.endswith("ready") else status.live
                self._answer(200 if good else 503, status.report().encode(), "application/json")
            else:
                self._answer(404, b"no such page\n", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
            logger.debug(format, *args)

    server = ThreadingHTTPServer((HOST, port), Pages)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
