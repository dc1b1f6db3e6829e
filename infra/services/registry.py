"""The services Penstock can run, and the commands over them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from infra.errors import ServiceError
from infra.services import (
    flink_cluster,
    kafka_broker,
    mlflow_server,
    prefect_server,
    prometheus_server,
    python_services,
    redis_server,
    zookeeper_server,
)
from infra.services.ports import choose_port, wait_until_free
from infra.services.process import (
    is_healthy,
    is_running,
    reap,
    service_lock,
    spawn,
    stop_group,
    stop_service,
    wait_until_ready,
)
from infra.services.service import Service, ServiceDefinition
from infra.services.state import ServiceState, forget_state, load_state
from infra.settings import Settings

# In the order of a start: a service comes after those it needs.
SERVICES: dict[str, ServiceDefinition] = {
    definition.name: definition
    for definition in (
        prefect_server.DEFINITION,
        mlflow_server.DEFINITION,
        kafka_broker.DEFINITION,
        zookeeper_server.DEFINITION,
        flink_cluster.JOBMANAGER,
        flink_cluster.TASKMANAGER,
        flink_cluster.STANDBY,
        redis_server.DEFINITION,
        *python_services.definitions(),
        prometheus_server.DEFINITION,
        python_services.WATCHDOG,
    )
}


@dataclass(frozen=True)
class ServiceStatus:
    """What is known of a service now.

    Args:
        name: short name.
        title: name for people.
        state: "stopped", "crashed" (it ended by itself), "starting" (alive, not ready), or
            "running".
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


def with_needs(names: Iterable[str]) -> list[str]:
    """The services named and all that they need, in the order of a start.

    Raises:
        ServiceError: an unknown name.
    """
    wanted: set[str] = set()
    waiting = [definition_of(name) for name in names]
    while waiting:
        definition = waiting.pop()
        wanted.add(definition.name)
        waiting += [definition_of(need) for need in definition.needs if need not in wanted]
    return [name for name in SERVICES if name in wanted]


def is_ready(settings: Settings, state: ServiceState, definition: ServiceDefinition) -> bool:
    """Whether a live service can be worked with."""
    if not is_healthy(state.port, state.health):
        return False
    return definition.ready is None or definition.ready(settings, state)


def service_status(settings: Settings, name: str) -> ServiceStatus:
    """Status of one service, from its record and its processes."""
    definition = definition_of(name)
    state = load_state(settings, name)
    if state is None:
        return ServiceStatus(name, definition.title, "stopped")
    if not is_running(state):
        return ServiceStatus(name, definition.title, "crashed", log=state.log)
    phase = "running" if is_ready(settings, state, definition) else "starting"
    return describe(definition, state, phase)


def describe(
    definition: ServiceDefinition, state: ServiceState, phase: str, *, already: bool = False
) -> ServiceStatus:
    """Status of a live service."""
    url = definition.url(state.port)
    return ServiceStatus(
        definition.name, definition.title, phase, url, state.pid, state.log, already=already
    )


def start_service(
    settings: Settings, name: str, cancel: threading.Event | None = None
) -> ServiceStatus:
    """Start a service after those it needs, and wait until it is ready; one that runs stays.

    A service whose starting command was killed is waited for and adopted. Left-over processes
    of one whose leader died are ended first, and it gets its port again where that is free. If
    the start fails, nothing of it stays.

    Raises:
        ServiceError: port in use, the process ended, no answer in time, or ``cancel`` was set.
        MissingToolError: a program or a jar that it needs is not there.
    """
    definition = definition_of(name)
    for need in definition.needs:
        start_service(settings, need, cancel)
    with service_lock(settings, name, cancel):
        known = load_state(settings, name)
        if known and is_running(known):
            wait_until_ready(
                known,
                lambda: is_ready(settings, known, definition),
                settings.service_timeout,
                cancel=cancel,
            )
            return describe(definition, known, "running", already=True)
        return launch(settings, definition, known, cancel)


def revive_service(settings: Settings, name: str) -> ServiceStatus | None:
    """Start a service again that crashed; None where it was stopped on purpose, or lives.

    Unlike :func:`start_service` it never brings back what ``penstock down`` took away.

    Raises:
        ServiceError: as :func:`start_service`; the record then stays, so that the next call
            tries again.
    """
    definition = definition_of(name)
    with service_lock(settings, name):
        known = load_state(settings, name)
        if known is None or is_running(known):
            return None
        return launch(settings, definition, known, None, keep_record=True)


def replace_service(settings: Settings, name: str) -> ServiceStatus | None:
    """End a service that hangs, and start it again; None where there is none.

    Raises:
        ServiceError: as :func:`revive_service`.
    """
    definition = definition_of(name)
    with service_lock(settings, name):
        known = load_state(settings, name)
        if known is None:
            return None
        stop_group(known, timeout=1.0)
        return launch(settings, definition, known, None, keep_record=True)


def launch(
    settings: Settings,
    definition: ServiceDefinition,
    known: ServiceState | None,
    cancel: threading.Event | None,
    *,
    keep_record: bool = False,
) -> ServiceStatus:
    """Start a service that does not run; the caller holds its lock.

    Args:
        settings: the settings.
        definition: what to start.
        known: record of its last run, whose left-over processes are ended.
        cancel: another thread sets it to give up.
        keep_record: leave that record if the start fails.
    """
    name = definition.name
    if known:
        stop_group(known)
        reap(known)
        if not keep_record:
            forget_state(settings, name)
    configured = definition.configured_port(settings)
    if known and wait_until_free(known.port):
        port = known.port  # its clients still call it there
    elif known and keep_record:
        raise ServiceError(
            f"{name}: its port {known.port} was taken by another program",
            f"Stop that program, or run: penstock down {name}, then up again",
        )
    else:
        port = choose_port(configured, definition.usual_port, service=name)
    service = definition.build(settings, port)
    if definition.prepare:
        definition.prepare(settings, service)
    state, process = spawn(settings, service)
    try:
        wait_until_ready(
            state,
            lambda: is_ready(settings, state, definition),
            settings.service_timeout,
            process,
            cancel,
        )
    except BaseException:  # Ctrl-C too: a half-started server is of no use to anybody
        abandon(settings, service, state, process, keep_record=keep_record)
        raise
    process.returncode = 0  # it is meant to outlive us: no warning at exit
    return describe(definition, state, "running")


def abandon(
    settings: Settings,
    service: Service,
    state: ServiceState,
    process: subprocess.Popen[bytes],
    *,
    keep_record: bool,
) -> None:
    """End a service that did not get ready."""
    if keep_record:
        stop_group(state)
    else:
        stop_service(settings, service.name)
    process.wait()


def end_service(settings: Settings, name: str) -> bool:
    """Stop a service; whether it was running."""
    definition = definition_of(name)
    with service_lock(settings, name):
        return stop_service(settings, name, definition.stop_seconds)


def stop_order(names: Iterable[str]) -> list[str]:
    """The services named, each before those it needs, and the watchdog before all it watches."""
    wanted = set(names)
    return [name for name in reversed(SERVICES) if name in wanted]
