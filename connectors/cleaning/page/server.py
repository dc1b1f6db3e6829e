"""Serves the page of one run on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp

from connectors.cleaning.run import load_run
from connectors.local_page.server import serve, token_of

TOKEN_VARIABLE = "PENSTOCK_CLEAN_TOKEN"  # noqa: S105 - its name


def serve_page(
    folder: Path, *, port: int = 0, idle_seconds: float, tell: Callable[[str], None]
) -> None:
    """Serve the page of a run until Ctrl-C, or until nobody looks any more.

    Args:
        folder: Folder of the run.
        port: On this machine's loopback; 0 takes any free one.
        idle_seconds: Ends when no request came for so long.
        tell: Called with the page's address once it is served.

    Raises:
        OutputError: When there is no run, or a file of it was altered.
        ConfigurationError: When the token of the environment can be guessed.
        ServiceError: When the port is taken.
    """
    token = token_of(TOKEN_VARIABLE)
    load_run(folder)  # what is wrong with it is told before anything listens

    def app() -> ASGIApp:
        from connectors.cleaning.page.app import create_app

        return create_app(folder, token)

    serve(app, token, port=port, idle_seconds=idle_seconds, tell=tell)
