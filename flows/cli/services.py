"""``penstock up``, ``down`` and ``status``: the local services."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.paths import nearby, own_command
from infra.services.registry import (
    SERVICES,
    ServiceStatus,
    definition_of,
    end_service,
    service_status,
    start_service,
)
from infra.settings import get_settings

up_app = typer.Typer(add_completion=False)
down_app = typer.Typer(add_completion=False)
status_app = typer.Typer(add_completion=False)

Names = Annotated[
    list[str] | None, typer.Argument(help=f"Some of: {', '.join(SERVICES)}; all by default.")
]


def chosen(names: list[str] | None) -> list[str]:
    """The names given, checked, or all services."""
    return [definition_of(name).name for name in names] if names else list(SERVICES)


@up_app.command()
def up(names: Names = None) -> None:
    """Start the local services and wait until they answer; those that run are left alone."""
    from rich.console import Console

    settings = get_settings()
    selected = chosen(names)
    titles = " and ".join(SERVICES[name].title for name in selected)
    # One thread each: they boot side by side, and every one of them finishes or cleans up.
    with (
        Console(stderr=True).status(f"starting {titles} (10 to 40 s)"),
        ThreadPoolExecutor(len(selected)) as pool,
    ):
        cancel = threading.Event()
        try:
            waiting = [pool.submit(start_service, settings, name, cancel) for name in selected]
            wait(waiting)
        except KeyboardInterrupt:
            cancel.set()
            raise
    failures = [future.exception() for future in waiting]
    for future, failure in zip(waiting, failures, strict=True):
        if failure is None:
            status = future.result()
            word = "already running" if status.already else "started"
            typer.echo(f"{status.title} {word}: {status.url}")
    for failure in filter(None, failures):
        raise failure
    typer.echo(f"Stop them with: {own_command()} down")


@down_app.command()
def down(names: Names = None) -> None:
    """Stop the local services, whoever started them."""
    settings = get_settings()
    for name in chosen(names):
        stopped = end_service(settings, name)
        typer.echo(f"{SERVICES[name].title} {'stopped' if stopped else 'was not running'}")


@status_app.command()
def status(
    names: Names = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """Show what runs and where."""
    settings = get_settings()
    found = [service_status(settings, name) for name in chosen(names)]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    show(found)


def show(found: list[ServiceStatus]) -> None:
    """Print a table of services."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "address", "process", "log"):
        table.add_column(heading, overflow="fold")
    for each in found:
        pid = str(each.pid) if each.pid else ""
        log = nearby(each.log) if each.log else ""
        table.add_row(each.title, each.state, each.url, pid, log)
    Console().print(table)
