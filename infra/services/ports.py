"""Loopback ports: is one free, and which one to take."""

from __future__ import annotations

import socket

from infra.errors import ServiceError
from infra.settings import HOST


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT after a restart counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def choose_port(configured: int, usual: int, *, service: str) -> int:
    """The configured port, else the usual one, else any free one.

    Raises:
        ServiceError: the configured port is taken.
    """
    if configured:
        if not is_free(configured):
            raise ServiceError(
                f"{service}: port {configured} of {HOST} is in use",
                f"Stop the program that holds it, or set PENSTOCK_{service.upper()}_PORT "
                "to another port (0 takes a free one)",
            )
        return configured
    return usual if usual and is_free(usual) else any_free_port()
