"""``penstock demo``: a small bank, from simulated payments to a report, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Simulate a bank, train, score, write the report.", add_completion=False)

CARDS, TERMINALS, DAYS = 1_500, 3_000, 90
SETTINGS = {
    "trees": {"seeds": 2, "bins": 1023},
    "mlp": {"epochs": 3},
    "network": {"steps": 150, "folds": 2, "entities": {"steps": 40}},
}
"""Less training than by default, so that two cores finish in minutes."""


@app.command()
def demo(
    *,
    graph: Annotated[
        bool, typer.Option("--graph/--no-graph", help="Train the graph part, too.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the simulated bank.")] = 0,
) -> None:
    """Simulate a bank, train, register and promote a model, score the last day, report."""
    from flows.cli.fraud_model import open_console, run_scoring, run_training, show_training
    from flows.cli.paths import nearby, own_command
    from infra.settings import get_settings

    began = time.perf_counter()
    console = open_console()
    folder = get_settings().home / "demo"
    data = folder / f"bank-{seed}.parquet"
    console.rule("1. a small bank")
    simulate(console, data, seed)
    console.rule("2. check, train, judge, register, promote")
    record = run_training(
        console, data, "demo", {"graph": graph} | SETTINGS, report=folder / "report.html"
    )
    show_training(console, record)
    console.rule("3. the last day's scores")
    scored = run_scoring(console, data, folder / "scores.csv", "demo", 1.0)
    console.print(f"{scored['rows']:,} transactions scored, {scored['alerts']:,} alerts")
    console.rule("done")
    penstock = own_command()
    lines = [
        f"report    {nearby(record['report'])}",
        f"scores    {nearby(scored['out'])}",
        f"pages     {penstock} up    (Prefect: the flow runs; MLflow: the run and the model)",
        f"stop      {penstock} down",
        f"\nfinished in {time.perf_counter() - began:.0f} s",
    ]
    console.print("\n".join(lines), soft_wrap=True, highlight=False)


def simulate(console: Console, data: Path, seed: int) -> None:
    """Write the bank's payments unless they are there, and show a few."""
    from connectors.files import read_table, write_parquet_stream
    from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards

    if not data.is_file():
        config = CardsConfig(cards=CARDS, terminals=TERMINALS, days=DAYS, seed=seed)
        data.parent.mkdir(parents=True, exist_ok=True)
        with console.status(f"simulating {DAYS} days of {CARDS:,} cards"):
            write_parquet_stream(data, CARDS_SCHEMA, simulate_cards(config))
    from rich.table import Table

    payments = read_table(data)
    table = Table(*payments.column_names, title=f"{payments.num_rows:,} payments")
    for row in payments.slice(payments.num_rows - 5).to_pylist():
        table.add_row(*(str(v) for v in row.values()))
    console.print(table)
