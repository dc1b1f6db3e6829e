"""``penstock train``: trains a user's own model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_flow_console
from flows.cli.paths import nearby

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(add_completion=False)


@app.command()
def train(
    *,
    module: Annotated[
        str,
        typer.Option(help="Function that builds the job: package.module:function."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="File or folder that the function is given.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, e.g. optimizer.learning_rate=1e-3; repeatable."),
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help="Checkpoints, weights and report [default: in the home folder]."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say why time is lost: profile.html in the folder.")
    ] = False,
    hang_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Several processes end when one finishes no step for so long [default: 900].",
        ),
    ] = None,
    grace_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="So long they may save at SIGTERM or Ctrl-C before they are killed [default: 60].",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Train a model of your own; run it again after a kill and it goes on."""
    from kernels.runtime.config import RunConfig
    from kernels.runtime.job import find_builder
    from kernels.runtime.overrides import parse_changes

    # As python -m has it: a module in the folder at hand is found.
    sys.path.insert(0, str(Path.cwd()))
    changes = read_changes(settings or [])
    parse_changes(RunConfig, changes)  # refused now, not after Prefect and MLflow have come up
    find_builder(module)
    console = open_flow_console()
    from flows.train_model import train_model

    waits = {"hang_seconds": hang_seconds, "grace_seconds": grace_seconds}
    record: dict[str, Any] = train_model(
        module,
        str(data or ""),
        changes,
        nproc=nproc,
        folder=str(folder or ""),
        profile=profile,
        shown=console.is_terminal,
        **{name: seconds for name, seconds in waits.items() if seconds is not None},
    )
    show(console, record)
    if as_json:
        typer.echo(json.dumps(record))


def read_changes(texts: list[str]) -> dict[str, str]:
    """Return settings by name from texts like ``steps=100``.

    Raises:
        ValueError: For a text without a name or a value.
    """
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name or not sign or not value:
            raise ValueError(f"--set {text!r} must be like optimizer.learning_rate=1e-3")
        found[name] = value
    return found


def show(console: Console, record: dict[str, Any]) -> None:
    """Print what came of it and where it lies."""
    ended = record["stopped"] or "to the last step"
    best = "" if record["best"] is None else f", best {record['best']:.4g}"
    cost = record["cost"]
    done = f"{record['steps']:,} steps" if record["steps"] else "finished before, nothing to do"
    lines = (
        f"{done} ({ended}{best}) in {cost['seconds']:.1f} s, {record['precision']}",
        f"weights: {nearby(record['weights'])}",
        f"MLflow: {record['run_page']}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
