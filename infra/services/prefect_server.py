"""The Prefect server: API and pages on loopback, SQLite unless a PostgreSQL URL is given."""

from __future__ import annotations

import sys

from infra.services.environment import base_environment
from infra.services.service import Service, ServiceDefinition
from infra.settings import HOST, Settings


def database_url(settings: Settings) -> str | None:
    """The SQLAlchemy URL with the asynchronous driver that Prefect needs, None for SQLite."""
    if settings.prefect_database_url is None:
        return None
    scheme, rest = settings.prefect_database_url.get_secret_value().split(":", 1)
    drivers = {"postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg"}
    drivers["sqlite"] = "sqlite+aiosqlite"
    return f"{drivers.get(scheme, scheme)}:{rest}"


def build(settings: Settings, port: int) -> Service:
    """The service on a given port."""
    url = f"http://{HOST}:{port}"
    environment = base_environment(settings) | {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
    }
    database = database_url(settings)
    if database:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    if settings.prefect_auth:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = settings.prefect_auth.get_secret_value()
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", HOST)
    return Service(
        name="prefect",
        command=(*command, "--port", str(port)),
        port=port,
        health="/api/health",
        environment=environment,
    )


DEFINITION = ServiceDefinition(
    name="prefect",
    title="Prefect server",
    usual_port=4200,
    configured_port=lambda settings: settings.prefect_port,
    build=build,
)
