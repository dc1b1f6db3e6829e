"""``penstock defects``: inspect folders and cameras, serve the central model."""

from __future__ import annotations

import typer

from flows.cli.lazy import LazyCommand, LazyGroup


class DefectCommands(LazyGroup):
    """Every command of the inspection; a new one is a line here."""

    table = {  # noqa: RUF012 - constant
        "inspect": LazyCommand(
            "flows.cli.defects_inspect", "Judge a folder or a camera by an edge model."
        ),
        "serve": LazyCommand("flows.cli.defects_serve", "Serve the central model."),
    }


app = typer.Typer(
    cls=DefectCommands, add_completion=False, no_args_is_help=True, help="Find defects on a line."
)


@app.callback()
def defects() -> None:
    """Find defects on a line."""
