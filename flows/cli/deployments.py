"""``penstock deploy`` and ``worker``: the schedules of prefect.yaml, and what runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from infra.errors import ConfigurationError, PenstockError, ServiceError
from infra.settings import CHECKOUT

deploy_app = typer.Typer(add_completion=False)
worker_app = typer.Typer(add_completion=False)

POOL = "penstock"
OF_FRAUD = (
    "train-fraud/weekly",
    "score-batch/daily",
    "refresh-embeddings/midweek",
    "explain-model/monthly",
    "explain-cases/worst-of-day",
)
OF_LINE = ("train-defects/{{ $PENSTOCK_LINE }}", "inspect-batch/{{ $PENSTOCK_LINE }}")
"""As prefect.yaml names them, which Prefect fills in afterwards."""
LINE = re.compile(r"[A-Za-z0-9_.-]+")
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


@deploy_app.command()
def deploy(
    data: Annotated[
        Path,
        typer.Argument(
            help="File of transactions, or a line's folder of labelled images.", show_default=False
        ),
    ],
    *,
    config: Annotated[
        str, typer.Option(help="Dataset config: a TOML file, or a shipped one's name.")
    ] = "handbook",
    line: Annotated[
        str, typer.Option(help="Name of the line whose images DATA holds.", show_default=False)
    ] = "",
    camera: Annotated[
        Path | None,
        typer.Option(help="Folder where the line's camera puts its images.", show_default=False),
    ] = None,
) -> None:
    """Put the scheduled runs of prefect.yaml on the Prefect server."""
    given = _line(data, line, camera) if line or camera else _fraud(data, config)
    environment = server_environment() | given
    environment["PWD"] = str(CHECKOUT)  # prefect.yaml makes it the folder of every run
    tell_prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    names = [("--name", name) for name in (OF_LINE if line else OF_FRAUD)]
    tell_prefect(environment, "deploy", *chain.from_iterable(names))
    typer.echo(f"deployed at {environment['PREFECT_API_URL']}; run them with: penstock worker")


@worker_app.command()
def worker() -> None:
    """Run what is scheduled, until Ctrl-C."""
    environment = server_environment()
    command = [*PREFECT, "worker", "start", "--pool", POOL]
    # It takes the place of this process, so that signals reach it and nothing is left behind.
    os.chdir(CHECKOUT)
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted


def _fraud(data: Path, config: str) -> dict[str, str]:
    from flows.cli.fraud_model import require_inputs

    require_inputs(data, config, None)
    own = Path(config)
    return {
        "PENSTOCK_DATA_FILE": str(data.resolve()),
        "PENSTOCK_DATASET": str(own.resolve()) if own.is_file() else config,
    }


def _line(images: Path, line: str, camera: Path | None) -> dict[str, str]:
    if not line or camera is None:
        raise ConfigurationError(
            "a line needs a name and a camera's folder", "Give --line NAME --camera FOLDER"
        )
    if not LINE.fullmatch(line):
        raise ConfigurationError(
            f"line name {line!r}", "Give letters, digits, '-', '_' and '.' only"
        )
    for folder in (images, camera):
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder", "Give one that is there")
    return {
        "PENSTOCK_IMAGES": str(images.resolve()),
        "PENSTOCK_LINE": line,
        "PENSTOCK_CAMERA": str(camera.resolve()),
    }


def server_environment() -> dict[str, str]:
    """Return the environment of a run, which a worker hands on to its flows.

    Raises:
        ServiceError: No Prefect server runs.
    """
    from infra.environment import apply_environment
    from infra.settings import get_settings

    if "PREFECT_API_URL" not in apply_environment(get_settings()):
        raise ServiceError("no Prefect server runs", "Run: penstock up")
    return dict(os.environ)


def tell_prefect(environment: dict[str, str], *words: str) -> None:
    """Run one Prefect command.

    Raises:
        PenstockError: It failed; with the last line it said.
    """
    done = subprocess.run(
        [*PREFECT, *words],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise PenstockError(
            f"prefect {' '.join(words[:2])} failed: {said[-1] if said else 'no message'}",
            "Look at penstock status; is the server the one you mean?",
        )
