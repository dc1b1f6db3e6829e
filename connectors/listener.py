"""The socket of a server, bound before anything slow begins: a taken port is told at once."""

from __future__ import annotations

import socket

from infra.errors import ServiceError


def bound_listener(host: str, port: int, *, what: str, fix: str) -> socket.socket:
    """Return a TCP socket bound to an address.

    Args:
        host: IPv4 or IPv6 address, or a name.
        port: 0 for any free one.
        what: Who wants to listen, for the message.
        fix: What to do where the port is taken.

    Raises:
        ServiceError: It cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"{what} cannot listen on {host}:{port} ({error.strerror})", fix
        ) from error
    return listener
