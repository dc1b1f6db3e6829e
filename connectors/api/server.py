"""``python -m connectors.api.server``: the API as a process."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectors.api.http_run import HttpRun, quiet_collector, serve_http
from connectors.api.server_settings import settings_parser
from connectors.api.settings import ApiSettings, api_settings
from connectors.listener import bound_listener
from infra.errors import PenstockError
from infra.logging import configure_logging

if TYPE_CHECKING:
    from connectors.api.service import Service


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
        quiet_collector()
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, listener))
    finally:
        service.close()
        listener.close()


async def _serve(service: Service, listener: socket.socket) -> None:
    from connectors.api.app import create_app
    from connectors.api.protocol import ShortWay, protocol_class

    settings = service.settings
    short = ShortWay(service.scoring, service.gate, service.metrics, settings)

    def ending() -> None:
        service.stopping = True  # streams of events end, and no more requests are asked for

    run = HttpRun(
        "API",
        settings.idle_seconds,
        settings.stop_seconds,
        settings.tls_certificate,
        settings.tls_key,
    )
    await serve_http(create_app(service), protocol_class(short), listener, run, ending)


def _warm(service: Service) -> None:
    """Compile and load what the first request would wait for; the state stays as it is."""
    from connectors.api.warm_up import warm_up

    warm_up(service)


def _parser() -> argparse.ArgumentParser:
    return settings_parser(
        ApiSettings,
        "python -m connectors.api.server",
        "Serve the fraud API. Every setting is a variable PENSTOCK_API_NAME, too; "
        "tokens come from variables or a file alone.",
    )


if __name__ == "__main__":
    sys.exit(main())
