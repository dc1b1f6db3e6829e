"""``penstock defects pretrain``: builds the weights of the small net anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def pretrain(
    *,
    out: Annotated[
        Path | None, typer.Option(help="File of the weights [default: in the run's folder].")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the recipe, e.g. steps=200; repeatable."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Checkpoints [default: in the home folder].")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Train the weights of the small net on generated images; run it again after a kill."""
    from flows.cli.console import open_flow_console
    from flows.cli.paths import nearby
    from flows.cli.train import read_changes
    from tasks.defects.pretrain.recipe import with_changes

    changes = read_changes(settings or [])
    with_changes(changes)  # refused now, not after Prefect and MLflow have come up
    console = open_flow_console()
    from flows.pretrain_defects import pretrain_defects

    record: dict[str, Any] = pretrain_defects(
        changes, out=str(out or ""), folder=str(folder or ""), shown=console.is_terminal
    )
    done = f"{record['finished']:,} steps ({record['steps']:,} of them now)"
    for line in (
        f"{done} in {record['cost']['seconds']:.0f} s, {record['precision']}",
        f"weights: {nearby(record['weights'])}, sha256 {record['digest']}",
        f"MLflow: {record['run_page']}",
    ):
        console.print(line, soft_wrap=True, highlight=False)
    if as_json:
        typer.echo(json.dumps(record))
