"""The record of a started service, kept on disk so that any later command finds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.files import write_atomically
from infra.settings import Settings


@dataclass(frozen=True)
class ServiceState:
    """Identity of a service's process group.

    Args:
        name: short name.
        pid: process id, also the id of its process group and session.
        created: start time of the process in seconds since the epoch (guards against a
            process id that was given to another program).
        token: random text in the environment of every process of the group.
        port: loopback port.
        command: argument list.
        health: URL path asked for readiness.
        log: path of the log file.
    """

    name: str
    pid: int
    created: float
    token: str
    port: int
    command: tuple[str, ...]
    health: str
    log: str


def state_path(settings: Settings, name: str) -> Path:
    """Path of the record of one service."""
    return settings.services / f"{name}.json"


def save_state(settings: Settings, state: ServiceState) -> None:
    """Write the record, whole or not at all."""
    write_atomically(state_path(settings, state.name), json.dumps(asdict(state), indent=1))


def load_state(settings: Settings, name: str) -> ServiceState | None:
    """The record of a service, or None where there is none that can be read."""
    try:
        fields = json.loads(state_path(settings, name).read_text(encoding="utf-8"))
        fields["command"] = tuple(fields["command"])
        return ServiceState(**fields)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def forget_state(settings: Settings, name: str) -> None:
    """Remove the record."""
    state_path(settings, name).unlink(missing_ok=True)
