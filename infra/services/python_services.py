"""Services that are programs of this checkout: the API, the store's writer, the watchdog."""

from __future__ import annotations

import sys
from collections.abc import Callable

from infra.services.service import Service, ServiceDefinition
from infra.settings import CHECKOUT, Settings


def module_service(name: str, module: str, health: str) -> Callable[[Settings, int], Service]:
    """Builder of the service ``python -m MODULE --port PORT``; it finds the settings itself."""

    def build(settings: Settings, port: int) -> Service:
        return Service(
            name=name,
            command=(sys.executable, "-m", module, "--port", str(port)),
            port=port,
            health=health,
            environment={"PENSTOCK_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
        )

    return build


API = ServiceDefinition(
    name="api",
    title="fraud API",
    usual_port=8000,
    configured_port=lambda settings: settings.api_port,
    build=module_service("api", "connectors.api.server", "/health/ready"),
    group="stream",
)
STORE_WRITER = ServiceDefinition(
    name="store-writer",
    title="writer of the online store",
    usual_port=8002,
    configured_port=lambda settings: settings.store_writer_port,
    build=module_service("store-writer", "connectors.online_store.writer", "/health/ready"),
    needs=("kafka",),
    group="stream",
)
WATCHDOG = ServiceDefinition(
    name="watchdog",
    title="watchdog of the stream",
    usual_port=8090,
    configured_port=lambda settings: settings.watchdog_port,
    build=module_service("watchdog", "infra.watchdog", "/health/live"),
    group="stream",
)


def definitions() -> list[ServiceDefinition]:
    """The services of the upper floors that this checkout holds; nothing is imported."""
    places = {STORE_WRITER: "connectors/online_store/writer.py", API: "connectors/api/server.py"}
    return [found for found, place in places.items() if (CHECKOUT / place).is_file()]
