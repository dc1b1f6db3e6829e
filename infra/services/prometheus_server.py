"""Prometheus of the distribution: keeps the measures of the API and of the stream."""

from __future__ import annotations

import shutil

from infra.errors import MissingToolError
from infra.services.java import TEMPLATES, render
from infra.services.service import Service, ServiceDefinition
from infra.services.state import load_state
from infra.settings import HOST, Settings

FIX = "Run: sudo apt-get install -y prometheus && sudo systemctl disable --now prometheus"
# Services with a page /metrics. Flink's own reporter would listen on every interface, so the
# watchdog tells what it reads of the job.
SCRAPED = {"api": 8000, "store-writer": 8002, "watchdog": 8090}


def build(settings: Settings, port: int) -> Service:
    """The service on a given port; writes its configuration file.

    Raises:
        MissingToolError: the program is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise MissingToolError("prometheus: the program is missing", FIX)
    folder = settings.home / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {"own_port": port}
    for name, usual in SCRAPED.items():
        state = load_state(settings, name)
        values[f"{name.replace('-', '_')}_port"] = state.port if state else usual
    template = TEMPLATES / "prometheus" / "prometheus.yml"
    file = render(template, folder / "prometheus.yml", values)
    return Service(
        name="prometheus",
        command=(
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--storage.tsdb.retention.size={settings.prometheus_disk_mb}MB",
            f"--web.listen-address={HOST}:{port}",
            "--log.level=warn",
        ),
        port=port,
        health="/-/ready",
    )


DEFINITION = ServiceDefinition(
    name="prometheus",
    title="Prometheus",
    usual_port=9090,
    configured_port=lambda settings: settings.prometheus_port,
    build=build,
    group="extra",
)
