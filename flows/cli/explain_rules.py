"""``penstock explain rules`` and ``trial``: rules that decide as a model does, and their trials."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import open_console, printable, shield_flow
from flows.cli.explain_options import (
    AsJson,
    BlockAt,
    Config,
    Contract,
    Data,
    Days,
    Held,
    Model,
    Out,
    Output,
    ReviewAt,
    Rows,
    Seed,
    Time,
    own_record,
    path_text,
    require_data,
)
from flows.cli.paths import nearby


def rules(
    data: Data,
    *,
    out: Out = Path("rules"),
    config: Config = "handbook",
    contract: Contract = None,
    model: Model = None,
    background: Held = None,
    time_column: Time = "",
    review_at: ReviewAt = None,
    block_at: BlockAt = None,
    output: Output = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Most rules.")] = 30,
    table: Annotated[str, typer.Option(help="Name of the table in the queries.")] = "payments",
    version: Annotated[
        str, typer.Option(help="Of the edition; none: the day of the newest row mined from.")
    ] = "",
    days: Days = 0.0,
    rows: Rows = 200_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Mine rules that decide as the model does; text, JSON, SQL and Flink SQL."""
    own = own_record(data, model, background, time=time_column, review_at=review_at,
                     block_at=block_at, output=output, seed=seed)  # fmt: skip
    console = open_console()
    from flows.cli.progress import shown

    require_data(data, config, contract, own)
    with shown(f"mining rules from {data.name}", console):
        from flows.explain_rules import explain_rules

        shield_flow()
        record: dict[str, Any] = explain_rules(
            str(data), str(out.resolve()), config, contract=path_text(contract), own=own, days=days,
            rows=rows, settings={"max_rules": most, "seed": seed}, table=table, version=version,
            seed=seed,
        )  # fmt: skip
    figures, same = record["metrics"], record["fidelity"]
    console.print(
        f"version {printable(record['version'])}: {figures['rules/n_rules']:.0f} rules of "
        f"{record['mined']:,} rows; on "
        f"{record['measured']:,} newer ones they decide as the model does in "
        f"{same['value']:.1%} ({same['low']:.1%} to {same['high']:.1%})",
        highlight=False,
        soft_wrap=True,
    )
    for name in ("coverage", "precision", "f1"):
        if f"rules/{name}" in figures:
            console.print(f"{name} of flagged rows {figures[f'rules/{name}']:.3f}", highlight=False)
    for file in record["files"]:
        console.print(nearby(file), soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run']['page']}", soft_wrap=True, highlight=False)
    if as_json:
        typer.echo(json.dumps(record))


def trial(
    edition: Annotated[
        Path, typer.Argument(help="Edition of rules, rules.json.", show_default=False)
    ],
    data: Data,
    *,
    by: Annotated[str, typer.Option(help="Who answers for the edition.", show_default=False)],
    before: Annotated[Path | None, typer.Option(help="Edition in force; none: the first.")] = None,
    config: Config = "handbook",
    contract: Contract = None,
    model: Model = None,
    background: Held = None,
    time_column: Time = "",
    review_at: ReviewAt = None,
    block_at: BlockAt = None,
    output: Output = None,
    least_precision: Annotated[float, typer.Option(help="Of flagged rows, at least.")] = 0.5,
    least_coverage: Annotated[float, typer.Option(help="Of the model's flags, at least.")] = 0.0,
    most_flagged: Annotated[float, typer.Option(help="Share of all rows, at most.")] = 0.05,
    most_changed: Annotated[float, typer.Option(help="Decided anew, at most.")] = 0.01,
    most_vetoed: Annotated[
        float, typer.Option(help="Of the model's flags approved, at most, to be allowed to veto.")
    ] = 0.0,
    newest: Annotated[
        float, typer.Option(help="Share of the rows tried on, the newest; mining takes the others.")
    ] = 0.3,
    days: Days = 0.0,
    rows: Rows = 200_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Try an edition of rules over history before it goes live; exit code 2 when it fails."""
    own = own_record(data, model, background, time=time_column, review_at=review_at,
                     block_at=block_at, output=output, seed=seed)  # fmt: skip
    console = open_console()
    from connectors.explain.rule_trial import read_edition
    from flows.cli.progress import shown
    from tasks.explain.rules.approval import Limits

    require_data(data, config, contract, own)
    limits = Limits(least_precision, least_coverage, most_flagged, most_changed, most_vetoed)
    if not by.strip():
        raise ValueError("--by is empty; name who answers for the edition")
    for file in (edition, before):
        if file is not None:
            read_edition(file)
    with shown(f"trying {edition.name} over {data.name}", console):
        from flows.explain_rules import try_rules

        shield_flow()
        record: dict[str, Any] = try_rules(
            str(edition.resolve()), str(data), config, tried_by=by,
            before=str(before.resolve()) if before else "", contract=path_text(contract), own=own,
            days=days, rows=rows, limits=asdict(limits), newest=newest, seed=seed,
        )  # fmt: skip
    for name in ("precision", "coverage", "flagged", "changed", "vetoed"):
        value = record[name]
        console.print(f"{name} {'-' if value is None else f'{value:.4f}'}", highlight=False)
    if before is None:
        console.print("first edition: nothing is changed; name the one in force by --before")
    console.print(nearby(record["file"]), soft_wrap=True, highlight=False)
    if as_json:
        typer.echo(json.dumps(record))
    for failure in record["failures"]:
        console.print(
            printable(failure), style="red", soft_wrap=True, highlight=False, markup=False
        )
    if record["failures"]:
        raise typer.Exit(2)
