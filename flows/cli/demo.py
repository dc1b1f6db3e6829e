"""``penstock demo``: a small bank, then a line of parts, each from data to a report, in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import open_console

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="A bank and a line of parts: train, score, explain, serve, inspect, write the reports.",
    add_completion=False,
)

CARDS, TERMINALS, DAYS = 1_500, 3_000, 90
SETTINGS = {
    "trees": {"seeds": 2, "bins": 1023},
    "mlp": {"epochs": 3},
    "network": {"steps": 150, "folds": 2, "entities": {"steps": 40}},
}
"""Of the bank: less training than by default, so that two cores finish in minutes."""


@app.command()
def demo(
    *,
    graph: Annotated[
        bool, typer.Option("--graph/--no-graph", help="Train the graph part, too.")
    ] = True,
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="Serve live traffic in the end.")
    ] = True,
    inspect: Annotated[
        bool, typer.Option("--inspect/--no-inspect", help="Inspect a line of cast parts, too.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the bank and the line.")] = 0,
) -> None:
    """Simulate a bank, train and promote a model, score the last day, explain, serve, report.

    Then the same for images of a production line.
    """
    from flows.cli.demo_defects import inspect_line
    from flows.cli.demo_explain import explain_champion
    from flows.cli.fraud_model import run_scoring, run_training, show_training
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
    console.rule("4. why")
    explained = explain_champion(console, data, Path(record["report"]), folder / "explained")
    if live:
        console.rule("5. live traffic")
        serve_live(console, data, Path(record["report"]), folder / "live")
    lines = [f"report    {nearby(record['report'])}", f"scores    {nearby(scored['out'])}"]
    lines += explained
    console.rule("6. scored unseen")
    score_unseen(console, data, Path(record["report"]), folder / "private")
    if inspect:
        console.rule("7. inspecting cast parts")
        lines += inspect_line(console, folder / "line", seed)
    console.rule("done")
    penstock = own_command()
    lines += [
        f"pages     {penstock} up    (Prefect: the flow runs; MLflow: the runs and the models)",
        f"stop      {penstock} down",
        f"\nfinished in {time.perf_counter() - began:.0f} s",
    ]
    console.print("\n".join(lines), soft_wrap=True, highlight=False)


def serve_live(console: Console, data: Path, report: Path, folder: Path) -> None:
    """Send payments to an API and a stream, show what came of it, and add it to the report."""
    from dataclasses import asdict

    from connectors.flink.start import model_folder
    from flows.live_demo import run_live
    from infra.files import write_atomically
    from infra.settings import get_settings
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.report.added import with_added

    settings = get_settings()
    bundle = Bundle.load(model_folder(settings, "registry:demo"))
    with console.status("live traffic") as status:
        found = run_live(settings, data, bundle, folder, tell=status.update)
    decisions = ", ".join(f"{n:,} {name}" for name, n in sorted(found.decisions.items()))
    console.print(
        f"{found.payments:,} payments at {found.per_s:.0f} a second: {decisions}\n"
        f"the API answered in {found.p50_ms:.1f} ms (99 of 100 within {found.p99_ms:.1f} ms)\n"
        f"the stream scored {found.streamed:,} of them {found.stream_p50_s:.1f} s later; "
        f"largest difference of the two scores {found.difference:.1e}",
        highlight=False,
    )
    for each in found.examples[:2]:
        reasons = "; ".join(each["reasons"])
        console.print(f"{each['decision']} at {each['score']:.3f}: {reasons}", highlight=False)
    html = with_added(
        report.read_text(encoding="utf-8"),
        "live",
        "Live",
        f=asdict(found),
        link="live/live.json",
        amount=bundle.config.amount,
    )
    write_atomically(report, html)


def score_unseen(console: Console, data: Path, report: Path, folder: Path) -> None:
    """Have payments scored encrypted by another process, and add what came of it to the report."""
    from dataclasses import asdict

    from connectors.flink.start import model_folder
    from flows.private_demo import run_private
    from infra.files import write_atomically
    from infra.settings import get_settings
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.report.added import with_added

    settings = get_settings()
    bundle = Bundle.load(model_folder(settings, "registry:demo"))
    with console.status("scored unseen") as status:
        found = run_private(settings, data, bundle, folder, tell=status.update)
    console.print(
        f"{found.rows:,} payments scored by a process that saw ciphertexts alone"
        f" ({found.security_bits} bits of security): {found.same:,} with the same decision\n"
        f"log-odds within {found.difference:.1e} (proved: {found.proved:.1e});"
        f" {found.up_bytes:,.0f} bytes up and {found.down_bytes:,.0f} down a payment;"
        f" {found.owner_ms:.0f} ms with the owner, {found.scorer_ms:.0f} ms there and back",
        highlight=False,
    )
    html = with_added(
        report.read_text(encoding="utf-8"),
        "private",
        "Scored unseen",
        f=asdict(found),
        link="private/private.json",
    )
    write_atomically(report, html)


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
