"""Redis of the distribution as an online store for several machines: loopback, with a log."""

from __future__ import annotations

import shutil

from infra.errors import MissingToolError, ServiceError
from infra.services.java import TEMPLATES, render
from infra.services.process import answers, is_running
from infra.services.service import Service, ServiceDefinition
from infra.services.state import ServiceState, load_state
from infra.settings import HOST, Settings

FIX = "Run: sudo apt-get install -y redis-server && sudo systemctl disable --now redis-server"


def build(settings: Settings, port: int) -> Service:
    """The service on a given port; writes its configuration file.

    Raises:
        MissingToolError: the program is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise MissingToolError("redis: the program redis-server is missing", FIX)
    folder = settings.home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "port": port,
        "folder": folder,
        "memory_mb": settings.redis_memory_mb,
    }
    file = render(TEMPLATES / "redis" / "redis.conf", folder / "redis.conf", values)
    return Service(name="redis", command=(program, str(file)), port=port)


def answers_ping(_: Settings, state: ServiceState) -> bool:
    """Whether the server has read its data and answers."""
    return answers(state.port, b"PING\r\n", b"+PONG\r\n")


def redis_url(settings: Settings) -> str:
    """Address for clients: the configured one, else that of our running server.

    Raises:
        ServiceError: neither is there.
    """
    if settings.redis_url:
        return settings.redis_url.get_secret_value()
    state = load_state(settings, "redis")
    if state is None or not is_running(state):
        raise ServiceError("no Redis runs", "Run: penstock up redis (or set PENSTOCK_REDIS_URL)")
    return f"redis://{HOST}:{state.port}/0"


DEFINITION = ServiceDefinition(
    name="redis",
    title="Redis",
    usual_port=6379,
    configured_port=lambda settings: settings.redis_port,
    build=build,
    ready=answers_ping,
    group="extra",
    address=f"redis://{HOST}:{{port}}",
)
