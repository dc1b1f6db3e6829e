"""``penstock deploy`` and ``worker``: the schedules of prefect.yaml, and what runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.errors import PenstockError, ServiceError
from infra.settings import CHECKOUT

deploy_app = typer.Typer(add_completion=False)
worker_app = typer.Typer(add_completion=False)

POOL = "penstock"
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


@deploy_app.command()
def deploy(
    data: Annotated[Path, typer.Argument(help="File that every run reads.", show_default=False)],
    *,
    config: Annotated[
        str, typer.Option(help="Dataset config: a TOML file, or a shipped one's name.")
    ] = "handbook",
) -> None:
    """Put the scheduled runs of prefect.yaml on the Prefect server."""
    from flows.cli.fraud_model import require_inputs

    require_inputs(data, config, None)
    described = Path(config)
    environment = server_environment() | {
        "PWD": str(CHECKOUT),  # prefect.yaml makes it the folder of every run
        "PENSTOCK_DATA_FILE": str(data.resolve()),
        "PENSTOCK_DATASET": str(described.resolve()) if described.is_file() else config,
    }
    tell_prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    tell_prefect(environment, "deploy", "--all")
    typer.echo(f"deployed at {environment['PREFECT_API_URL']}; run them with: penstock worker")


@worker_app.command()
def worker() -> None:
    """Run what is scheduled, until Ctrl-C."""
    environment = server_environment()
    command = [*PREFECT, "worker", "start", "--pool", POOL]
    # It takes the place of this process, so that signals reach it and nothing is left behind.
    os.chdir(CHECKOUT)
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted


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
