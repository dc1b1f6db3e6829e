"""Runs an application until a signal comes: the same way for every server of the house."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

BACKLOG = 2_048
GENERATIONS = (50_000, 20, 1_000)
"""Thresholds of the garbage collector: what lives on is frozen, so full rounds can be rare."""


@dataclass(frozen=True, slots=True)
class HttpRun:
    """How a server is run.

    Attributes:
        what: Its name in the log.
        idle_seconds: Time a connection may stay idle.
        stop_seconds: Time running requests get at the end.
        certificate: Certificate; None without TLS.
        key: Its key.
    """

    what: str
    idle_seconds: float
    stop_seconds: float
    certificate: Path | None = None
    key: Path | None = None


async def serve_http(
    app: ASGIApp,
    protocol: type[HttpToolsProtocol],
    listener: socket.socket,
    run: HttpRun,
    ending: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: The application.
        protocol: Its connections.
        listener: A bound socket.
        run: How.
        ending: Called when the signal comes, before connections are closed.
    """
    import uvicorn

    from connectors.api.connection import sweep_often

    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=round(run.idle_seconds),
        timeout_graceful_shutdown=round(run.stop_seconds),
        ssl_certfile=run.certificate,
        ssl_keyfile=run.key,
    )
    server = uvicorn.Server(config)

    def end(number: int) -> None:
        ending()
        server.handle_exit(number, None)

    # Not by uvicorn's own handlers: they raise the signal again once it has stopped, which would
    # end the process before what it keeps is closed.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    sweep = asyncio.create_task(sweep_often(server.server_state.connections))
    logger.info("%s listens on %s", run.what, url_of(listener, tls=bool(run.certificate)))
    try:
        await server.serve(sockets=[listener])
    finally:
        sweep.cancel()
        with suppress(asyncio.CancelledError):
            await sweep


def url_of(listener: socket.socket, *, tls: bool) -> str:
    """Return the address of a bound socket, as a client writes it."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def quiet_collector() -> None:
    """Let the garbage collector look at new objects only, after everything has been loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GENERATIONS)
