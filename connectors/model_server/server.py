"""``python -m connectors.model_server.server``: the model server as a process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from connectors.api.http_run import BACKLOG, HttpRun, quiet_collector, serve_http, url_of
from connectors.api.server_settings import TOKENS, settings_parser
from connectors.listener import bound_listener
from connectors.model_server.settings import (
    PREFIX,
    ModelServerSettings,
    model_server_settings,
)
from connectors.model_server.workers import Worker, supervise, worker_of
from infra.errors import PenstockError
from infra.logging import configure_logging

if TYPE_CHECKING:
    from connectors.model_server.service import ModelService


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code."""
    parser = settings_parser(
        ModelServerSettings,
        "python -m connectors.model_server.server",
        f"Serve ONNX models. Every setting is a variable {PREFIX}NAME, too; tokens come from "
        f"{TOKENS} or a file alone.",
    )
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    try:
        settings = model_server_settings(**given)
        configure_logging(settings.log_level)
        worker = worker_of(os.environ)
        if worker is not None:
            serve_worker(settings, worker)
        else:
            serve(settings)
    except PenstockError as error:
        sys.stderr.write(f"penstock models: {error}\n")
        return 1
    return 0


def serve(settings: ModelServerSettings, told: Callable[[str], None] = lambda _: None) -> None:
    """Serve until a signal comes.

    Args:
        settings: What, where and how.
        told: Called with the address once it is known; one process answers soon after.

    Raises:
        PenstockError: It cannot start; the message names the remedy.
    """
    listener = bound_listener(
        settings.host,
        settings.port,
        what="the model server",
        fix=f"Stop the program that holds the port, or set {PREFIX}PORT",
    )
    with listener:
        if settings.workers > 1:
            told(url_of(listener, tls=bool(settings.tls_certificate)))
            supervise(settings, listener)
        else:
            _serve(settings, listener, None, told)


def serve_worker(settings: ModelServerSettings, worker: Worker) -> None:
    """Serve as one process of several, on the socket of the one that started it.

    Raises:
        PenstockError: It cannot start.
    """
    with worker.socket() as listener:
        _serve(settings, listener, worker)


def _serve(
    settings: ModelServerSettings,
    listener: socket.socket,
    worker: Worker | None,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    from connectors.model_server.service import build_service

    service = build_service(settings)
    try:
        quiet_collector()
        listener.listen(BACKLOG)  # who comes from now on waits a moment, and is not refused
        told(url_of(listener, tls=bool(settings.tls_certificate)))
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(service, listener, worker))
    finally:
        service.close()


async def _run(service: ModelService, listener: socket.socket, worker: Worker | None) -> None:
    from connectors.api.connection import ConnectionLimits, Wire, guarded
    from connectors.model_server.app import create_app
    from connectors.model_server.service import reply_to

    settings = service.settings
    limits = ConnectionLimits(
        settings.max_connections, settings.read_seconds, settings.idle_seconds
    )
    tls = bool(settings.tls_certificate)
    wire = Wire(service.gate, service.metrics, limits, tls=tls, reply=reply_to)

    def ending() -> None:
        service.stopping = True

    render = None if worker is None else worker.render(service.metrics)
    run = HttpRun(
        "model server",
        settings.idle_seconds,
        settings.stop_seconds,
        settings.tls_certificate,
        settings.tls_key,
    )
    beside = None if worker is None else asyncio.create_task(worker.run(service.metrics))
    try:
        await serve_http(create_app(service, render), guarded(wire), listener, run, ending)
    finally:
        if beside is not None:
            beside.cancel()


if __name__ == "__main__":
    sys.exit(main())
