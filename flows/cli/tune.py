"""``penstock tune``: searches the hyper-parameters of a user's own model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_flow_console

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(add_completion=False)


@app.command()
def tune(
    *,
    module: Annotated[str, typer.Option(help="The search, a TuningJob: package.module:name.")],
    seconds: Annotated[float, typer.Option(help="Budget, over all starts.")] = 3_600.0,
    trials: Annotated[
        int | None, typer.Option(help="Trials at most [default: as time allows].")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials at the same time.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed is another search.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Search for hyper-parameters; run it again, after a kill or with more time, and it goes on."""
    from kernels.tuning.job import find_job

    # As python -m has it: a module in the folder at hand is found.
    sys.path.insert(0, str(Path.cwd()))
    find_job(module)  # refused now, not after Prefect and MLflow have come up
    console = open_flow_console()
    from flows.tune_model import tune_model

    record = tune_model(module, seconds=seconds, trials=trials, seed=seed, workers=workers)
    show(console, record)
    if as_json:
        typer.echo(json.dumps(record))


def show(console: Console, record: dict[str, Any]) -> None:
    """Print what was found."""
    states = [trial["state"] for trial in record["trials"]]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    lines = [f"{len(states)} trials ({counts}) in {record['seconds']:.0f} s"]
    best = record["best"]
    if best is None:
        lines.append("none has a figure: give it more time, or look at its errors")
    else:
        chosen = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in best["parameters"].items()
        )
        lines.append(f"best: {best['value']:.4g} by trial {best['number']}: {chosen}")
    lines.append(f"MLflow: {record['run_page']}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
