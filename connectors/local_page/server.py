"""Serves a page on this machine until Ctrl-C, or until nobody looks any more."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from starlette.types import ASGIApp

from connectors.listener import bound_listener
from connectors.local_page.guard import MIN_TOKEN, TOKEN_SHAPE, Guard
from infra.errors import ConfigurationError
from infra.settings import HOST

MAX_HEAD = 1 << 15
"""Bytes of a request before its body."""
MAX_CONNECTIONS = 40
STOP_SECONDS = 10
POLL_SECONDS = 0.5


def token_of(variable: str) -> str:
    """Return the token of an environment variable, a random one where it is not set.

    Raises:
        ConfigurationError: When the token can be guessed.
    """
    given = os.environ.get(variable, "")
    if not given:
        return secrets.token_urlsafe(32)
    if not TOKEN_SHAPE.fullmatch(given):
        raise ConfigurationError(
            f"{variable} is no token of {MIN_TOKEN} to 200 letters, digits, - and _",
            "Unset it for a random one, or make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return given


def serve(
    make_app: Callable[[], ASGIApp],
    token: str,
    *,
    port: int = 0,
    idle_seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Serve an application behind the guard.

    Args:
        make_app: Returns the application; called once the port is taken.
        token: First part of every address.
        port: On this machine's loopback; 0 takes any free one.
        idle_seconds: Ends when no request came for so long.
        tell: Called with the page's address once it is served.

    Raises:
        ServiceError: When the port is taken.
    """
    with bound_listener(
        HOST, port, what="the page", fix="Name another --port, or none for any free one"
    ) as listener:
        asyncio.run(_serve(make_app, listener, token, idle_seconds, tell))


async def _serve(
    make_app: Callable[[], ASGIApp],
    listener: socket.socket,
    token: str,
    idle_seconds: float,
    tell: Callable[[str], None],
) -> None:
    import uvicorn

    port = listener.getsockname()[1]
    guard = Guard(make_app(), token=token, port=port)
    config = uvicorn.Config(
        guard,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)
    # Not by uvicorn's own handlers: they raise the signal again once it has stopped.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.handle_exit, number, None)

    async def watch() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        tell(f"http://{HOST}:{port}/{token}/")
        while time.monotonic() - guard.last < idle_seconds:
            await asyncio.sleep(min(POLL_SECONDS, idle_seconds))
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
