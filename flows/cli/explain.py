"""``penstock explain``: why a model decides as it does, by case, by model, by rules, over weeks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_console, printable, shield_flow
from flows.cli.explain_options import (
    AsJson,
    BlockAt,
    Catalogue,
    Config,
    Contract,
    Data,
    Days,
    Entity,
    Groups,
    Held,
    Key,
    Label,
    Language,
    Model,
    Out,
    Output,
    ReviewAt,
    Rows,
    Seconds,
    Seed,
    Segment,
    Time,
    own_record,
    path_text,
    require_data,
    require_words,
)
from flows.cli.explain_rules import rules, trial
from flows.cli.paths import nearby

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Explain the serving fraud model, or a model and table of your own.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def case(
    data: Data,
    *,
    out: Out = Path("cases"),
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Event id, or value of --key-column.")
    ] = None,
    worst: Annotated[
        int, typer.Option(min=1, help="Without --key: how many of the highest scores.")
    ] = 5,
    config: Config = "handbook",
    contract: Contract = None,
    model: Model = None,
    background: Held = None,
    groups: Groups = None,
    key_column: Key = "",
    time_column: Time = "",
    label_column: Label = "",
    entity_column: Entity = "",
    review_at: ReviewAt = None,
    block_at: BlockAt = None,
    output: Output = None,
    seconds: Seconds = None,
    catalogue: Catalogue = None,
    language: Language = "en",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Say why single rows were decided as they were; a page for each."""
    own = own_record(
        data, model, background, groups=groups, key=key_column, time=time_column,
        label=label_column, entity=entity_column, review_at=review_at, block_at=block_at,
        output=output, seconds=seconds, seed=seed,
    )  # fmt: skip
    console = open_console()
    record = run_cases(
        console, data, out, config, keys=key, worst=worst, contract=contract, own=own,
        catalogue=catalogue, language=language, seed=seed,
    )  # fmt: skip
    show_cases(console, record)
    if as_json:
        typer.echo(json.dumps(record))


@app.command("model")
def model_(
    data: Data,
    *,
    out: Out = Path("explained"),
    config: Config = "handbook",
    contract: Contract = None,
    model: Model = None,
    background: Held = None,
    groups: Groups = None,
    key_column: Key = "",
    time_column: Time = "",
    entity_column: Entity = "",
    segment: Segment = None,
    review_at: ReviewAt = None,
    block_at: BlockAt = None,
    output: Output = None,
    seconds: Seconds = None,
    days: Days = 28.0,
    rows: Rows = 2_000,
    redraws: Annotated[
        int, typer.Option(min=0, help="Redraws of the background that stability is measured by.")
    ] = 5,
    catalogue: Catalogue = None,
    language: Language = "en",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Explain many rows: what drives the scores, segments, stability, drift."""
    own = own_record(
        data, model, background, groups=groups, key=key_column, time=time_column,
        entity=entity_column, segments=tuple(segment or ()), review_at=review_at,
        block_at=block_at, output=output, seconds=seconds, seed=seed,
    )  # fmt: skip
    console = open_console()
    from flows.cli.progress import shown

    require_data(data, config, contract, own)
    require_words(catalogue, language)
    with shown(f"explaining {data.name}", console):
        from flows.explain_model import explain_model

        shield_flow()
        record: dict[str, Any] = explain_model(
            str(data), str(out.resolve()), config, contract=path_text(contract), own=own,
            catalogue=path_text(catalogue), language=language, days=days, rows=rows,
            redraws=redraws, seed=seed,
        )  # fmt: skip
    show_model(console, record)
    if as_json:
        typer.echo(json.dumps(record))


app.command()(rules)
app.command()(trial)


@app.command()
def drift(
    record: Annotated[
        list[Path],
        typer.Argument(help="Folders that `penstock explain model` wrote.", show_default=False),
    ],
    *,
    days: Annotated[float, typer.Option(min=0.01, help="Length of a period.")] = 7.0,
    least: Annotated[int, typer.Option(min=2, help="Fewest rows of a period.")] = 50,
    level: Annotated[float, typer.Option(help="Chance of a false alarm.")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Compare the reasons of weeks; exit code 2 when a week is beyond chance."""
    import numpy as np

    from connectors.explain.set_files import read_set
    from tasks.explain.drift import DAY_MS, DriftConfig
    from tasks.explain.drift import drift as compare
    from tasks.explain.joined import joined

    found = joined([read_set(folder) for folder in record])
    if found.times is None:
        raise ValueError("the records have no instants; explain with --time-column")
    config = DriftConfig(period_ms=round(days * DAY_MS), least_rows=least, level=level)
    made = compare(found.values, found.times, found.contract.labels, config)
    for period in made.periods:
        typer.echo(printable(period.text))
    if as_json:
        periods = [
            {"start": p.start, "rows": p.profile.rows, "alarm": p.alarm,
             "share": np.round(p.profile.share, 6).tolist(),
             "strength": asdict(p.strength) if p.strength else None,
             "first": asdict(p.first) if p.first else None}
            for p in made.periods
        ]  # fmt: skip
        typer.echo(json.dumps({"labels": made.labels, "periods": periods, "alarms": made.alarms}))
    if made.alarms:
        raise typer.Exit(2)


def run_cases(
    console: Console,
    data: Path,
    out: Path,
    config: str,
    *,
    keys: list[str] | None = None,
    worst: int = 5,
    contract: Path | None = None,
    own: dict[str, Any] | None = None,
    catalogue: Path | None = None,
    language: str = "en",
    seed: int = 0,
) -> dict[str, Any]:
    """Run the flow of cases and show its steps."""
    from flows.cli.progress import shown

    require_data(data, config, contract, own)
    require_words(catalogue, language)
    with shown(f"explaining {data.name}", console):
        from flows.explain_cases import explain_cases

        shield_flow()
        record: dict[str, Any] = explain_cases(
            str(data), str(out.resolve()), config, keys=keys, worst=worst,
            contract=path_text(contract), own=own, catalogue=path_text(catalogue),
            language=language, seed=seed,
        )  # fmt: skip
    return record


def show_cases(console: Console, record: dict[str, Any]) -> None:
    """Print each case with its reasons, and where to look."""
    for one in record["cases"]:
        decided = one["decision"] or "not flagged"
        line = f"{printable(one['key'])}: {decided} at {one['score']:.4f}"
        console.print(line, highlight=False, markup=False)
        for reason in one["reasons"]:
            bar = f" ± {reason['error']:.2f}" if reason["error"] else ""
            tie = "  (tied with the next)" if reason["tie"] else ""
            code = f"{reason['code']}  " if reason["code"] else ""
            line = f"  {reason['contribution']:+.2f}{bar}  {code}{printable(reason['text'])}{tie}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for player, value in one["beneath"].get("raising", ()):
            line = f"    {value:+.2f}  in {one['beneath']['player']}: {printable(player)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {nearby(one['page'])}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run']['page']}", soft_wrap=True, highlight=False)


def show_model(console: Console, record: dict[str, Any]) -> None:
    """Print what drives the scores, how sure that is, and where to look."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("player", "mean |contribution|", title=f"{record['rows']:,} rows explained")
    for label, strength in record["strongest"]:
        table.add_row(escape(printable(label)), f"{strength:.4g}")
    console.print(table)
    figures = record["metrics"]
    console.print(f"largest additivity gap {figures['shap/additivity_max']:.1e}", highlight=False)
    if "shap/top4_stability" in figures:
        share = figures["shap/top4_stability"]
        console.print(f"{share:.1%} of the top reasons stay over redraws", highlight=False)
    for alarm in record["alarms"]:
        console.print(printable(alarm), style="yellow", markup=False, soft_wrap=True)
    if record["undrifted"]:
        line = f"weeks not compared: {printable(record['undrifted'])}"
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"report: {nearby(record['report'])}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run']['page']}", soft_wrap=True, highlight=False)
