"""The process that serves the central model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from connectors.api.server_settings import TOKENS, is_loopback
from connectors.api.tokens import read_tokens
from connectors.defects.inspect.central.app import create_app
from connectors.defects.inspect.central.service import Central, CentralConfig
from connectors.defects.inspect.inspector import Inspector
from connectors.listener import bound_listener
from infra.errors import ConfigurationError

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Each may hold a body of the largest size in memory."""


def serve(
    inspector: Inspector,
    home: Path,
    *,
    host: str,
    port: int,
    config: CentralConfig | None = None,
    tls: tuple[Path, Path] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until a signal comes.

    Args:
        inspector: The model.
        home: Folder of the state.
        host: Address to listen on.
        port: Port, 0 for any free one.
        config: Bounds.
        tls: Certificate and key.
        told: Called with the address once it listens.

    Raises:
        ConfigurationError: No token, or tokens would travel in the clear.
        ServiceError: The port is taken.
    """
    import uvicorn

    tokens = read_tokens(os.environ.get(TOKENS, ""), None)
    if not len(tokens):
        raise ConfigurationError(
            f"{TOKENS} names no token", "Set it to NAME:score:SECRET, one for each edge"
        )
    if tls is None and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines and tokens would travel in the clear",
            "Give --tls-certificate and --tls-key, or listen on 127.0.0.1 behind a proxy",
        )
    config = replace(config or CentralConfig(), tls=tls is not None)
    listener = bound_listener(
        host,
        port,
        what="the central machine",
        fix="Stop the program that holds the port, or choose another --port",
    )
    try:
        central = Central(inspector, home, tokens, config)
        address = listener.getsockname()
        scheme = "https" if tls else "http"
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        told(f"{scheme}://{shown}:{address[1]}")
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(central),
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=10,
                ssl_certfile=tls[0] if tls else None,
                ssl_keyfile=tls[1] if tls else None,
            )
        )
        server.run(sockets=[listener])
    finally:
        listener.close()
