"""``penstock clean open``: look through a run in the browser, and decide there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def open_page(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a run, as penstock clean run tells it.", show_default=False),
    ],
    *,
    port: Annotated[
        int, typer.Option(help="Port on this machine [default: any free one].", min=0, max=65_535)
    ] = 0,
    idle_minutes: Annotated[
        float, typer.Option(help="End when nobody looked for so long.", min=0.01, max=1_440)
    ] = 60.0,
) -> None:
    """Open a page on which every change can be undone and every suggestion decided."""
    from connectors.cleaning.page.server import serve_page

    def tell(address: str) -> None:
        typer.echo(f"{address}\nonly this machine can open it; Ctrl-C ends it")

    serve_page(folder, port=port, idle_seconds=60 * idle_minutes, tell=tell)
    typer.echo("closed; every decision is published")
