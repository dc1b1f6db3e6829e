"""What the watchdog tells: a JSON file, and a small server for people and Prometheus."""

from __future__ import annotations

import http.server
import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.files import write_atomically
from infra.settings import HOST, Settings
from infra.watchdog.judge import Verdict
from infra.watchdog.observe import Observation

STATES = (
    "idle",
    "held",
    "unreachable",
    "missing",
    "stopped",
    "starting",
    "healthy",
    "lagging",
    "restarting",
    "overdue",
    "failed",
    "given-up",
)
KEPT_ACTIONS = 50


@dataclass
class Report:
    """The last judgement with its history; written as JSON.

    Args:
        job: name of the job.
        state: see :class:`infra.watchdog.judge.Verdict`.
        reason: one line for people.
        updated_at: when, seconds since the epoch.
        since: since when the state is this one.
        observation: what was seen.
        services: state of every watched service with a record.
        actions: the last remedies, oldest first: time, what, result.
        counts: how often each remedy was carried out.
    """

    job: str = ""
    state: str = "idle"
    reason: str = ""
    updated_at: float = 0.0
    since: float = 0.0
    observation: dict[str, object] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    actions: list[dict[str, object]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def update(self, job: str, seen: Observation, verdict: Verdict) -> None:
        """Take up a new judgement."""
        if verdict.state != self.state:
            self.since = seen.at
        self.job, self.state, self.reason = job, verdict.state, verdict.reason
        self.updated_at = seen.at
        self.observation = asdict(seen)

    def act(self, what: str, result: str) -> None:
        """Note a remedy that was carried out or failed."""
        self.actions = [*self.actions, {"at": time.time(), "what": what, "result": result}]
        self.actions = self.actions[-KEPT_ACTIONS:]
        kind = what.split(" ", 1)[0]
        self.counts = {**self.counts, kind: self.counts.get(kind, 0) + 1}


def status_path(settings: Settings) -> Path:
    """The JSON file."""
    return settings.home / "watchdog" / "status.json"


def read_status(settings: Settings) -> dict[str, object] | None:
    """What the watchdog wrote last, None where it never did."""
    try:
        found = json.loads(status_path(settings).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_status(settings: Settings, report: Report) -> None:
    """Write the JSON file whole."""
    write_atomically(status_path(settings), json.dumps(asdict(report), indent=1))


def as_metrics(report: Report) -> str:
    """The report in Prometheus' text format."""
    seen = report.observation
    lines = ["# TYPE penstock_stream_state gauge"]
    lines += [f'penstock_stream_state{{state="{s}"}} {int(s == report.state)}' for s in STATES]
    at = float(str(seen.get("checkpoint_at") or 0.0))
    measures: dict[str, object] = {
        "penstock_stream_checkpoint_age_seconds": time.time() - at if at else None,
        "penstock_stream_checkpoint_duration_seconds": seen.get("checkpoint_s"),
        "penstock_stream_restarts": seen.get("restarts"),
        "penstock_stream_lag_records": seen.get("lag"),
        "penstock_stream_back_pressure_ratio": seen.get("back_pressure"),
        "penstock_watchdog_updated_seconds": report.updated_at,
    }
    for name, value in measures.items():
        if value is not None:
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
    lines.append("# TYPE penstock_service_up gauge")
    for name, state in sorted(report.services.items()):
        lines.append(f'penstock_service_up{{service="{name}"}} {int(state == "running")}')
    lines.append("# TYPE penstock_watchdog_remedies_total counter")
    for name, count in sorted(report.counts.items()):
        lines.append(f'penstock_watchdog_remedies_total{{remedy="{name}"}} {count}')
    return "\n".join(lines) + "\n"


class ReportServer(http.server.ThreadingHTTPServer):
    """Serves ``/health/live``, ``/status`` and ``/metrics`` on loopback.

    Args:
        port: where to listen; 0 takes any.
        alive_s: a report older than this makes ``/health/live`` answer 503.
    """

    daemon_threads = True

    def __init__(self, port: int, alive_s: float = 60.0) -> None:
        super().__init__((HOST, port), ReportHandler)
        self.alive_s = alive_s
        self.report = Report()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread.start()


class ReportHandler(http.server.BaseHTTPRequestHandler):
    """Answers GET from the server's report."""

    server: ReportServer

    def do_GET(self) -> None:
        """One answer."""
        report = self.server.report
        if self.path == "/health/live":
            fresh = time.time() - report.updated_at < self.server.alive_s
            self._answer(200 if fresh else 503, "text/plain", report.state)
        elif self.path == "/status":
            self._answer(200, "application/json", json.dumps(asdict(report)))
        elif self.path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4", as_metrics(report))
        else:
            self._answer(404, "text/plain", "try /status, /metrics or /health/live")

    def _answer(self, code: int, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: a line per scrape helps nobody."""
