"""The services Penstock can run, and the commands over them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from infra.errors import ServiceError
from infra.services import mlflow_server, prefect_server
from infra.services.ports import choose_port
from infra.services.process import (
    is_healthy,
    is_running,
    service_lock,
    spawn,
    stop_group,
    stop_service,
    wait_until_healthy,
)
from infra.services.service import ServiceDefinition
from infra.services.state import forget_state, load_state
from infra.settings import HOST, Settings

SERVICES: dict[str, ServiceDefinition] = {
    definition.name: definition
    for definition in (prefect_server.DEFINITION, mlflow_server.DEFINITION)
}


@dataclass(frozen=True)
class ServiceStatus:
    """What is known of a service now.

    Args:
        name: short name.
        title: name for people.
        state: "stopped", "starting" (alive, not answering), or "running".
        url: address, "" when stopped.
        pid: process id, 0 when stopped.
        log: path of its log, "" when stopped.
        already: it ran before the command that reports it.
    """

    name: str
    title: str
    state: str
    url: str = ""
    pid: int = 0
    log: str = ""
    already: bool = False


def definition_of(name: str) -> ServiceDefinition:
    """Look a service up by name.

    Raises:
        ServiceError: unknown name; lists those known.
    """
    try:
        return SERVICES[name]
    except KeyError:
        raise ServiceError(f"no service named {name!r}", f"Known: {', '.join(SERVICES)}") from None


def service_status(settings: Settings, name: str) -> ServiceStatus:
    """Status of one service, from its record and its processes."""
    definition = definition_of(name)
    state = load_state(settings, name)
    if state is None or not is_running(state):
        return ServiceStatus(name, definition.title, "stopped")
    phase = "running" if is_healthy(state.port, state.health) else "starting"
    url = f"http://{HOST}:{state.port}"
    return ServiceStatus(name, definition.title, phase, url, state.pid, state.log)


def start_service(
    settings: Settings, name: str, cancel: threading.Event | None = None
) -> ServiceStatus:
    """Start a service and wait until it answers; one that runs is left as it is.

    A service whose starting command was killed is waited for and adopted. Left-over processes
    of one whose leader died are ended first. If the start fails, nothing of it stays.

    Raises:
        ServiceError: port in use, the process ended, no answer in time, or ``cancel`` was set.
    """
    definition = definition_of(name)
    with service_lock(settings, name, cancel):
        known = load_state(settings, name)
        if known and is_running(known):
            wait_until_healthy(known, settings.service_timeout, cancel=cancel)
            url = f"http://{HOST}:{known.port}"
            return ServiceStatus(
                name, definition.title, "running", url, known.pid, known.log, already=True
            )
        if known:
            stop_group(known)
            forget_state(settings, name)
        port = choose_port(
            definition.configured_port(settings), definition.usual_port, service=name
        )
        state, process = spawn(settings, definition.build(settings, port))
        try:
            wait_until_healthy(state, settings.service_timeout, process, cancel)
        except BaseException:  # Ctrl-C too: a half-started server is of no use to anybody
            stop_service(settings, name)
            process.wait()
            raise
        process.returncode = 0  # it is meant to outlive us: no warning at exit
    return ServiceStatus(
        name, definition.title, "running", f"http://{HOST}:{port}", state.pid, state.log
    )


def end_service(settings: Settings, name: str) -> bool:
    """Stop a service; whether it was running."""
    definition_of(name)
    with service_lock(settings, name):
        return stop_service(settings, name)
