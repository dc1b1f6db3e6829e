"""The environment variables that servers and their clients share."""

from __future__ import annotations

import os

from infra.certificate import loopback_certificate
from infra.settings import HOST, Settings


def base_environment(settings: Settings) -> dict[str, str]:
    """What servers and clients share; see docs/decisions/2026-11-23-local-services.md for why."""
    without_proxy = [os.environ.get("NO_PROXY", ""), HOST, "localhost"]
    exempt = ",".join(dict.fromkeys(",".join(filter(None, without_proxy)).split(",")))
    return {
        "PENSTOCK_HOME": str(settings.home),
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_API_SSL_CERT_FILE": str(loopback_certificate(settings.home)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow would print every run's address with the login of the tracking URI.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # A client without a server creates experiments here instead of in ./mlruns.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": artifact_root(settings),
    }


def artifact_root(settings: Settings) -> str:
    """URI under which MLflow keeps files; the same with and without a running server."""
    return settings.mlflow_artifact_root or (settings.home / "mlartifacts").as_uri()


def mlflow_backend_url(settings: Settings) -> str:
    """SQLAlchemy URL of MLflow's database; PostgreSQL goes through the pinned psycopg2."""
    if settings.mlflow_backend_url is None:
        return f"sqlite:///{settings.home / 'mlflow.db'}"
    scheme, rest = settings.mlflow_backend_url.get_secret_value().split(":", 1)
    if scheme in {"postgres", "postgresql"}:
        scheme = "postgresql+psycopg2"
    return f"{scheme}:{rest}"
