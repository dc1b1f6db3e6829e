"""Loopback ports: is one free, and which one to take."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

from infra.errors import ServiceError
from infra.settings import HOST

LOWEST = 10_240
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 200
RELEASE_SECONDS = 3.0


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        hold(port).close()
    except OSError:
        return False
    return True


def hold(port: int) -> socket.socket:
    """Bind a port without listening, as servers do: `any_free_port` gives it to nobody else.

    A server that is told this port can still listen on it, for as long as the socket returned is
    open and after.

    Raises:
        OSError: somebody listens there.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do: a port in TIME_WAIT after a restart counts as free.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, port))
    except OSError:
        held.close()
        raise
    return held


def _is_bound(port: int) -> bool:
    """Whether any socket has this port: one that listens, that is held, or that lingers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def highest_port() -> int:
    """Where the range begins from which the kernel gives ports to outgoing connections."""
    try:
        return int(EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def any_free_port() -> int:
    """A port that nobody listens on, or holds for later (`hold`), at this moment.

    It lies below the range from which the kernel gives ports to outgoing connections: a client
    that keeps calling a stopped server inside that range may in the end be connected to itself,
    and then holds the port against the server's return.
    """
    highest = highest_port()
    dice = random.SystemRandom()
    for _ in range(TRIES if highest > LOWEST else 0):
        port = dice.randrange(LOWEST, highest)
        if not _is_bound(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_variable(service: str) -> str:
    """Name of the variable that sets a service's port."""
    return f"PENSTOCK_{service.upper().replace('-', '_')}_PORT"


def wait_until_free(port: int, seconds: float = RELEASE_SECONDS) -> bool:
    """Wait for a process that is being killed to let go of its port; whether it did."""
    deadline = time.monotonic() + seconds
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def choose_port(configured: int, usual: int, *, service: str) -> int:
    """The configured port, else the usual one, else any free one.

    Raises:
        ServiceError: the configured port is taken.
    """
    if configured:
        if not is_free(configured):
            raise ServiceError(
                f"{service}: port {configured} of {HOST} is in use",
                f"Stop the program that holds it, or set {port_variable(service)} "
                "to another port (0 takes a free one)",
            )
        return configured
    return usual if usual and is_free(usual) else any_free_port()
