"""``penstock up``, ``down`` and ``status``: the local services."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    stop_order,
    with_needs,
)
from infra.settings import Settings, get_settings

up_app = typer.Typer(add_completion=False)
down_app = typer.Typer(add_completion=False)
status_app = typer.Typer(add_completion=False)

Names = Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(SERVICES)}.")]
Stream = Annotated[bool, typer.Option("--stream", help="Also Kafka, Flink, the watchdog, the API.")]


def chosen(names: list[str] | None) -> list[str]:
    """The names given, checked, or all services."""
    return [definition_of(name).name for name in names] if names else list(SERVICES)


def to_start(settings: Settings, names: list[str] | None, *, stream: bool) -> list[str]:
    """The services named, else those of a plain ``up``; with ``--stream`` also the stream's."""
    groups = {"base"} if not names else set()
    groups |= {"stream"} if stream else set()
    grouped = [
        each.name for each in SERVICES.values() if each.group in groups and each.wanted(settings)
    ]
    return with_needs([*(names or []), *grouped])


@up_app.command()
def up(names: Names = None, *, stream: Stream = False) -> None:
    """Start the local services and wait until they are ready; those that run are left alone.

    Without names: the Prefect and MLflow servers. What a service needs is started with it.
    """
    from rich.console import Console

    settings = get_settings()
    selected = to_start(settings, names, stream=stream)
    titles = " and ".join(SERVICES[name].title for name in selected)
    # One thread each: they boot side by side, and every one of them finishes or cleans up.
    with (
        Console(stderr=True).status(f"starting {titles} (10 to 40 s)"),
        ThreadPoolExecutor(len(selected)) as pool,
    ):
        cancel = threading.Event()
        try:
            waiting = start_all(settings, selected, pool, cancel)
            wait(waiting.values())
        except KeyboardInterrupt:
            cancel.set()
            raise
    failures = [future.exception() for future in waiting.values()]
    for future, failure in zip(waiting.values(), failures, strict=True):
        if failure is None:
            status = future.result()
            word = "already running" if status.already else "started"
            typer.echo(f"{status.title} {word}: {status.url}")
    for failure in filter(None, failures):
        raise failure
    typer.echo(f"Stop them with: {own_command()} down")


def start_all(
    settings: Settings, selected: list[str], pool: ThreadPoolExecutor, cancel: threading.Event
) -> dict[str, Future[ServiceStatus]]:
    """Start services side by side, each once those it needs are ready.

    Args:
        settings: the settings.
        selected: names, a service after those it needs.
        pool: threads, as many as there are names.
        cancel: another thread sets it to give up.
    """
    waiting: dict[str, Future[ServiceStatus]] = {}

    def start(name: str, needs: list[Future[ServiceStatus]]) -> ServiceStatus:
        for need in needs:
            need.result()
        return start_service(settings, name, cancel)

    for name in selected:
        needs = [waiting[need] for need in SERVICES[name].needs]
        waiting[name] = pool.submit(start, name, needs)
    return waiting


@down_app.command()
def down(names: Names = None) -> None:
    """Stop the local services, whoever started them."""
    settings = get_settings()
    for name in stop_order(chosen(names)):
        definition = SERVICES[name]
        stopped = end_service(settings, name)
        # Of those that a plain ``up`` does not start only what there was is worth a line.
        if stopped or names or definition.group == "base":
            typer.echo(f"{definition.title} {'stopped' if stopped else 'was not running'}")


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
