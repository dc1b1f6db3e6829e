"""The MLflow server: one worker, no job runner (0.5 GiB instead of 2.9), SQLite or PostgreSQL."""

from __future__ import annotations

import sys

from infra.services.environment import artifact_root, base_environment, mlflow_backend_url
from infra.services.service import Service, ServiceDefinition
from infra.settings import HOST, Settings


def build(settings: Settings, port: int) -> Service:
    """The service on a given port.

    Runs started while it is down write straight to the same database and artifact folder, so
    the artifact root is that folder; the server also offers it to remote clients by proxy.
    """
    root = artifact_root(settings)
    environment = base_environment(settings) | {
        "MLFLOW_BACKEND_STORE_URI": mlflow_backend_url(settings),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = (sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port))
    return Service(
        name="mlflow",
        command=(
            *command,
            "--workers",
            "1",
            "--default-artifact-root",
            root,
            "--serve-artifacts",
            "--artifacts-destination",
            root,
        ),
        port=port,
        health="/health",
        environment=environment,
    )


DEFINITION = ServiceDefinition(
    name="mlflow",
    title="MLflow server",
    usual_port=5000,
    configured_port=lambda settings: settings.mlflow_port,
    build=build,
)
