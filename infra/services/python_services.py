"""Services that are programs of this checkout: the API, the store's writer, the watchdog.

Each is ``python -m MODULE --port PORT`` with pages for health and measures on that port.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.errors import ConfigurationError
from infra.files import write_atomically
from infra.services.kafka_broker import kafka_servers
from infra.services.service import Service, ServiceDefinition
from infra.services.state import load_state
from infra.settings import CHECKOUT, HOST, Settings

STORE_VARIABLE = "PENSTOCK_STORE_URL"
FROM_ENVIRONMENT = "from the environment"
"""In place of an address that may hold a password: it lies in no file."""


def program(
    settings: Settings,
    port: int,
    name: str,
    module: str,
    *options: str,
    health: str = "/health/ready",
    defaults: dict[str, str] | None = None,
) -> Service:
    """The service of one module.

    Args:
        settings: the settings.
        port: where its pages are.
        name: name of the service.
        module: what ``python -m`` runs.
        options: further arguments.
        health: page that tells that it is ready.
        defaults: variables for it; those of ``configure_service`` win, and the caller's over all.
    """
    chosen = configured(settings, name)
    require_environment(name, chosen)
    kept = {key: value for key, value in chosen.items() if value != FROM_ENVIRONMENT}
    known = (defaults or {}) | kept
    given = {key: value for key, value in known.items() if key not in os.environ}
    fixed = {"PENSTOCK_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}
    return Service(
        name=name,
        command=(sys.executable, "-m", module, "--port", str(port), *options),
        port=port,
        health=health,
        environment=given | fixed,
    )


def require_environment(name: str, chosen: Mapping[str, str]) -> None:
    """Refuse to start a service whose store was named by the environment, and is not now.

    Raises:
        ConfigurationError: Another store would be taken silently.
    """
    if FROM_ENVIRONMENT in chosen.values() and not os.environ.get(STORE_VARIABLE):
        raise ConfigurationError(
            f"{name}: its store was named by {STORE_VARIABLE}, which is not set here",
            f"Set {STORE_VARIABLE} for whoever starts it, the watchdog too, or start the stream "
            "anew with --store",
        )


def configure_service(settings: Settings, name: str, variables: Mapping[str, str]) -> None:
    """Keep the variables a service is started with, for now and for every later start.

    They lie in a plain file: secrets do not belong there, but names of files with their hashes.
    """
    path = variables_path(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(dict(variables), indent=1))


def configured(settings: Settings, name: str) -> dict[str, str]:
    """Return the variables kept for a service; none by default.

    Raises:
        ConfigurationError: the file holds something else.
    """
    path = variables_path(settings, name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON: {error}", "Remove it") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ConfigurationError(f"{path} must map names to texts", "Remove it")
    return found


def variables_path(settings: Settings, name: str) -> Path:
    """Return the file of a service's variables."""
    return settings.home / "stream" / "services" / f"{name}.json"


def brokers(settings: Settings) -> str:
    """Bootstrap address, also while our own broker is down."""
    state = load_state(settings, "kafka")
    if not settings.kafka_servers and state:
        return f"{HOST}:{state.port}"
    return kafka_servers(settings)


def build_api(settings: Settings, port: int) -> Service:
    """The API beside a stream: it reads the store and hands its events to Kafka."""
    from infra.environment import service_environment

    defaults = service_environment(settings) | {
        "PENSTOCK_API_HOME": str(settings.home / "api"),
        "PENSTOCK_API_MODE": "stream",
        "PENSTOCK_API_KAFKA": brokers(settings),
        "PENSTOCK_API_MODEL": f"registry:{settings.stream_dataset}",
        "PENSTOCK_API_STORE": store_url(settings),
    }
    return program(settings, port, "api", "connectors.api.server", defaults=defaults)


def build_store_writer(settings: Settings, port: int) -> Service:
    """The one process that writes the state of the stream into the online store."""
    defaults = {
        "PENSTOCK_KAFKA_SERVERS": brokers(settings),
        STORE_VARIABLE: store_url(settings),
    }
    options = ("--dataset", settings.stream_dataset) if settings.stream_dataset else ()
    module = "connectors.online_store.writer"
    return program(settings, port, "store-writer", module, *options, defaults=defaults)


def store_url(settings: Settings) -> str:
    """Where writer and API meet unless PENSTOCK_STORE_URL says otherwise."""
    return os.environ.get(STORE_VARIABLE) or f"lmdb://{settings.home}/online-store"


def build_watchdog(settings: Settings, port: int) -> Service:
    """The watchdog; what it watches is in a file of the home."""
    return program(settings, port, "watchdog", "infra.watchdog", health="/health/live")


STORE_WRITER = ServiceDefinition(
    name="store-writer",
    title="store writer",
    usual_port=8002,
    configured_port=lambda settings: settings.store_writer_port,
    build=build_store_writer,
    needs=("kafka",),
    group="stream",
    wanted=lambda settings: bool(settings.stream_dataset),
)
API = ServiceDefinition(
    name="api",
    title="fraud API",
    usual_port=8000,
    configured_port=lambda settings: settings.api_port,
    build=build_api,
    needs=("kafka",),
    group="stream",
    wanted=lambda settings: bool(settings.stream_dataset),
    stop_seconds=20.0,
)
WATCHDOG = ServiceDefinition(
    name="watchdog",
    title="watchdog",
    usual_port=8090,
    configured_port=lambda settings: settings.watchdog_port,
    build=build_watchdog,
    group="stream",
)


def definitions() -> list[ServiceDefinition]:
    """The services of the upper floors that this checkout holds; nothing is imported."""
    places = (
        (STORE_WRITER, "connectors/online_store/writer.py"),
        (API, "connectors/api/server.py"),
    )
    return [definition for definition, place in places if (CHECKOUT / place).is_file()]
