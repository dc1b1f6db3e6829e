"""The environment variables under which this process uses Prefect and MLflow."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from infra.services.environment import base_environment, mlflow_backend_url
from infra.services.registry import service_status
from infra.settings import Settings


def service_environment(settings: Settings) -> dict[str, str]:
    """Variables a flow needs before it imports prefect or mlflow.

    Prefect: the configured API, else our running server, else nothing (its ephemeral server).
    MLflow: the configured URI, else our running server, else the database itself.
    """
    environment = base_environment(settings)
    prefect_url = settings.prefect_api_url
    if prefect_url is None and (status := service_status(settings, "prefect")).url:
        prefect_url = f"{status.url}/api"
    if prefect_url:
        environment["PREFECT_API_URL"] = prefect_url
        if urlsplit(prefect_url).scheme == "https":
            del environment["PREFECT_API_SSL_CERT_FILE"]  # it verifies nothing but loopback
    if settings.prefect_auth:
        environment["PREFECT_API_AUTH_STRING"] = settings.prefect_auth.get_secret_value()
    environment["MLFLOW_TRACKING_URI"] = (
        settings.mlflow_tracking_uri
        or service_status(settings, "mlflow").url
        or mlflow_backend_url(settings)
    )
    return environment


def apply_environment(settings: Settings) -> dict[str, str]:
    """Lay :func:`service_environment` over this process; call it before importing prefect.

    Creates the home folder. Returns what was set, for the environment of subprocesses.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = service_environment(settings)
    os.environ.update(environment)
    return environment
