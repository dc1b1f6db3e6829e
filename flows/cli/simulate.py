"""``penstock simulate``: write a simulated transaction stream to a Parquet file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from connectors.files import write_parquet_stream
from tasks.fraud.simulate import (
    CARDS_SCHEMA,
    TRANSFERS_SCHEMA,
    CardsConfig,
    Drift,
    TransfersConfig,
    simulate_cards,
    simulate_transfers,
)

app = typer.Typer(
    help="Write a simulated transaction stream to a Parquet file.",
    no_args_is_help=True,
    add_completion=False,
)

Out = Annotated[Path, typer.Argument(help="Parquet file to write.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Same options and seed, same rows.")]
DriftSwitch = Annotated[
    bool, typer.Option("--drift", help="Let habits and the fraud mix move from day 30 on.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


@app.command()
def cards(
    out: Out,
    *,
    cards: Annotated[int, typer.Option(help="Number of cards.")] = 5_000,
    terminals: Annotated[int, typer.Option(help="Number of terminals.")] = 10_000,
    days: Annotated[int, typer.Option(help="Number of days.")] = 157,
    seed: Seed = 0,
    bad_terminals_per_day: Annotated[
        float | None,
        typer.Option(
            help="Terminals newly compromised each day [default: 2 per 10,000]", show_default=False
        ),
    ] = None,
    bad_cards_per_day: Annotated[
        float | None,
        typer.Option(
            help="Cards newly compromised each day [default: 3 per 5,000]", show_default=False
        ),
    ] = None,
    drift: DriftSwitch = False,
    force: Force = False,
) -> None:
    """Simulate card payments with large amounts, bad terminals and stolen cards into OUT."""
    config = CardsConfig(
        cards=cards,
        terminals=terminals,
        days=days,
        seed=seed,
        bad_terminals_per_day=bad_terminals_per_day,
        bad_cards_per_day=bad_cards_per_day,
        drift=Drift() if drift else None,
    )
    _write(out, CARDS_SCHEMA, simulate_cards(config), days, force=force, dataset="handbook")


@app.command()
def transfers(
    out: Out,
    *,
    accounts: Annotated[int, typer.Option(help="Number of accounts.")] = 10_000,
    days: Annotated[int, typer.Option(help="Number of days.")] = 120,
    rings: Annotated[int, typer.Option(help="Number of laundering rings.")] = 60,
    seed: Seed = 0,
    drift: DriftSwitch = False,
    force: Force = False,
) -> None:
    """Simulate account-to-account transfers with laundering rings into OUT."""
    config = TransfersConfig(
        accounts=accounts, days=days, rings=rings, seed=seed, drift=Drift() if drift else None
    )
    _write(
        out, TRANSFERS_SCHEMA, simulate_transfers(config), days, force=force, dataset="transfers"
    )


def _write(
    out: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    days: int,
    *,
    force: bool,
    dataset: str,
) -> None:
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; name a file, such as {out / 'tx.parquet'}")
    if out.suffix.lower() != ".parquet":
        raise ValueError(f"{out}: a Parquet file is written; end the name in .parquet")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another name or replace it with --force")
    console = Console()
    frauds = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    started = time.perf_counter()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(f"simulate {out.name}", total=days)

        def watched() -> Iterator[pa.RecordBatch]:
            nonlocal frauds
            for batch in batches:
                yield batch
                if len(batch):
                    frauds += int(batch["fraud"].to_numpy().sum())
                    progress.update(bar, completed=batch["t"][-1].as_py() / 86_400)

        rows = write_parquet_stream(out, schema, watched())
    seconds = time.perf_counter() - started
    console.print(
        f"{out}: {rows:,} transactions, {frauds:,} frauds ({frauds / max(rows, 1):.3%}), "
        f"{days} days, {out.stat().st_size / 2**20:.1f} MiB in {seconds:.1f} s; "
        f"dataset config: {dataset}.toml",
        soft_wrap=True,
        highlight=False,
    )
