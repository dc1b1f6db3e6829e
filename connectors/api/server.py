"""``python -m connectors.api.server``: the API as a process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from connectors.api.settings import ApiSettings, api_settings
from connectors.listener import bound_listener
from infra.errors import PenstockError
from infra.logging import configure_logging

if TYPE_CHECKING:
    from connectors.api.service import Service

logger = logging.getLogger(__name__)

BACKLOG = 2_048
GENERATIONS = (50_000, 20, 1_000)
"""Thresholds of the garbage collector: what lives on is frozen, so full rounds can be rare."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code."""
    options = _parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    try:
        settings = api_settings(**given)
        configure_logging(settings.log_level)
        serve(settings)
    except PenstockError as error:
        sys.stderr.write(f"penstock api: {error}\n")
        return 1
    return 0


def serve(settings: ApiSettings) -> None:
    """Serve until a signal comes.

    Raises:
        PenstockError: The API cannot start; the message names the remedy.
    """
    from connectors.api.build import build_service

    listener = bound_listener(
        settings.host,
        settings.port,
        what="the API",
        fix="Stop the program that holds the port, or set PENSTOCK_API_PORT",
    )
    try:
        service = build_service(settings)
    except BaseException:
        listener.close()
        raise
    try:
        _warm(service)
        _quiet_collector()
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, listener))
    finally:
        service.close()
        listener.close()


async def _serve(service: Service, listener: socket.socket) -> None:
    import uvicorn

    from connectors.api.app import create_app
    from connectors.api.protocol import ShortWay, protocol_class, sweep_often

    settings = service.settings
    short = ShortWay(service.scoring, service.gate, service.metrics, settings)
    config = uvicorn.Config(
        create_app(service),
        http=protocol_class(short),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=round(settings.idle_seconds),
        timeout_graceful_shutdown=round(settings.stop_seconds),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = uvicorn.Server(config)

    def end(number: int) -> None:
        service.stopping = True  # streams of events end, and no more requests are asked for
        server.handle_exit(number, None)

    # Not by uvicorn's own handlers: they raise the signal again once it has stopped, which would
    # end the process before the store is closed.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    sweep = asyncio.create_task(sweep_often(server.server_state.connections))
    address = listener.getsockname()
    scheme = "https" if settings.tls_certificate else "http"
    logger.info("API listens on %s://%s:%d", scheme, address[0], address[1])
    try:
        await server.serve(sockets=[listener])
    finally:
        sweep.cancel()
        with suppress(asyncio.CancelledError):
            await sweep


def _warm(service: Service) -> None:
    """Compile and load what the first request would wait for; the state stays as it is."""
    from connectors.api.warm_up import warm_up

    warm_up(service)


def _quiet_collector() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GENERATIONS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m connectors.api.server",
        description="Serve the fraud API. Every setting is a variable PENSTOCK_API_NAME, too; "
        "tokens come from variables or a file alone.",
        argument_default=None,
    )
    kinds: dict[Any, type] = {int: int, float: float}
    for name, field in ApiSettings.model_fields.items():
        if name == "tokens":
            continue
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, help=field.description
            )
        else:
            parser.add_argument(
                option, type=kinds.get(field.annotation, str), help=field.description
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
