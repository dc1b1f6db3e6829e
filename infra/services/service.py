"""What a local service is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infra.services.state import ServiceState
from infra.settings import HOST, Settings


@dataclass(frozen=True)
class Service:
    """One server process with everything needed to start it and to know that it is ready.

    Args:
        name: short name; also the name of its state and log files.
        command: argument list; holds no secret, for the process table is public.
        port: loopback port it listens on.
        health: URL path that answers 2xx once it is ready, or "" to wait for the port alone.
        environment: variables laid over those of the caller; may hold secrets.
    """

    name: str
    command: tuple[str, ...]
    port: int
    health: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Address for people of a service that speaks HTTP."""
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True)
class ServiceDefinition:
    """How to build a service from the settings.

    Args:
        name: short name.
        title: name for people.
        usual_port: port tried first when the settings leave the choice free.
        configured_port: the port the settings demand, 0 for none.
        build: makes the service for a chosen port; may write its configuration files.
        ready: says whether a service that answers at its port can be worked with, where an
            answer there is not enough.
        prepare: work to be done before every start, such as formatting a data folder.
        needs: names of the services that must be ready before this one starts.
        group: "base" is what ``penstock up`` starts, "stream" what ``--stream`` adds, "extra"
            starts only when named.
        wanted: whether a start of its group includes it; named, it starts in any case.
        address: address for people, with ``{port}``.
        stop_seconds: patience between SIGTERM and SIGKILL.
    """

    name: str
    title: str
    usual_port: int
    configured_port: Callable[[Settings], int]
    build: Callable[[Settings, int], Service]
    ready: Callable[[Settings, ServiceState], bool] | None = None
    prepare: Callable[[Settings, Service], None] | None = None
    needs: tuple[str, ...] = ()
    group: str = "base"
    wanted: Callable[[Settings], bool] = lambda _: True
    address: str = f"http://{HOST}:{{port}}"
    stop_seconds: float = 10.0

    def url(self, port: int) -> str:
        """Address for people of the service on a port."""
        return self.address.format(port=port)
