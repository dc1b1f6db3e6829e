"""``penstock explain``: why a model decides as it does, by case, by model, by rules, over weeks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_console, printable, shield_flow
from flows.cli.paths import nearby

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Explain the serving fraud model, or a model and table of your own.",
    no_args_is_help=True,
    add_completion=False,
)

Data = Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Config = Annotated[
    str,
    typer.Option(help="Dataset config of the fraud model: a TOML file or a shipped one's name."),
]
Contract = Annotated[
    Path | None, typer.Option("--contract", help="TOML of own lines that rows must meet.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="Own model: TorchScript (.pt), torch.export (.pt2) or ONNX."),
]
Held = Annotated[
    Path | None,
    typer.Option("--background", help="Own model: table of rows to compare with; its columns are "
                 "the model's features."),
]  # fmt: skip
Groups = Annotated[Path | None, typer.Option(help="Own model: TOML of groups, group = [features].")]
Key = Annotated[str, typer.Option("--key-column", help="Own table: column that names rows.")]
Time = Annotated[str, typer.Option("--time-column", help="Own table: column of instants.")]
Label = Annotated[str, typer.Option("--label-column", help="Own table: outcomes, 1 bad, 0 good.")]
Entity = Annotated[
    str, typer.Option("--entity-column", help="Own table: whose rows belong together.")
]
Segment = Annotated[
    list[str] | None, typer.Option("--segment", help="Own table: column that divides the rows.")
]
ReviewAt = Annotated[float | None, typer.Option(help="Own model: score from which to review.")]
BlockAt = Annotated[float | None, typer.Option(help="Own model: score from which to block.")]
Output = Annotated[int | None, typer.Option(help="Own model: which of several outputs, from 0.")]
Seconds = Annotated[
    float | None, typer.Option(min=0, help="Own model: time for one round of explanations.")
]
Days = Annotated[float, typer.Option(min=0, help="Whole days back from the last one; 0: all.")]
Rows = Annotated[int, typer.Option(min=1, help="Most rows; more are drawn from.")]
Seed = Annotated[int, typer.Option(help="Of all draws.")]


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
        console, data, out, config, keys=key, worst=worst, contract=contract, own=own, seed=seed
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
    with shown(f"explaining {data.name}", console):
        from flows.explain_model import explain_model

        shield_flow()
        record: dict[str, Any] = explain_model(
            str(data), str(out.resolve()), config, contract=_text(contract), own=own, days=days,
            rows=rows, redraws=redraws, seed=seed,
        )  # fmt: skip
    show_model(console, record)
    if as_json:
        typer.echo(json.dumps(record))


@app.command()
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
            str(data), str(out.resolve()), config, contract=_text(contract), own=own, days=days,
            rows=rows, settings={"max_rules": most, "seed": seed}, table=table, seed=seed,
        )  # fmt: skip
    figures, same = record["metrics"], record["fidelity"]
    console.print(
        f"{figures['rules/n_rules']:.0f} rules of {record['mined']:,} rows; on "
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


@app.command()
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
    days: Days = 0.0,
    rows: Rows = 200_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Try an edition of rules over history before it goes live; exit code 2 when it fails."""
    own = own_record(data, model, background, time=time_column, review_at=review_at,
                     block_at=block_at, output=output, seed=seed)  # fmt: skip
    console = open_console()
    from flows.cli.progress import shown
    from tasks.explain.rules.approval import Limits

    require_data(data, config, contract, own)
    limits = Limits(least_precision, least_coverage, most_flagged, most_changed)
    with shown(f"trying {edition.name} over {data.name}", console):
        from flows.explain_rules import try_rules

        shield_flow()
        record: dict[str, Any] = try_rules(
            str(edition.resolve()), str(data), config, tried_by=by,
            before=str(before.resolve()) if before else "", contract=_text(contract), own=own,
            days=days, rows=rows, limits=asdict(limits), seed=seed,
        )  # fmt: skip
    for name in ("precision", "coverage", "flagged", "changed"):
        value = record[name]
        console.print(f"{name} {'-' if value is None else f'{value:.4f}'}", highlight=False)
    console.print(nearby(record["file"]), soft_wrap=True, highlight=False)
    if as_json:
        typer.echo(json.dumps(record))
    for failure in record["failures"]:
        console.print(f"[red]{printable(failure)}[/red]", soft_wrap=True, highlight=False)
    if record["failures"]:
        raise typer.Exit(2)


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
    from tasks.explain.record import joined

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


def own_record(
    data: Path, model: Path | None, background: Path | None, **given: Any
) -> dict[str, Any] | None:
    """Return a user's own model as JSON data; None where none was given.

    Raises:
        ValueError: When only one of model and background was given, or an option needs both.
    """
    if (model is None) != (background is None):
        raise ValueError("--model and --background belong together; give both, or neither")
    if model is None or background is None:
        used = [name for name, value in given.items() if value not in (None, "", (), 0)]
        if used:
            raise ValueError(
                f"{used[0]!r} is an option of an own model: give --model and --background, too"
            )
        return None
    from connectors.explain.own_model import OwnModel
    from connectors.files import require_file

    for file in (model, background, data, given.get("groups")):
        if file is not None:
            require_file(file)
    paths: dict[str, Any] = {
        "model": model.resolve(),
        "data": data.resolve(),
        "background": background.resolve(),
    }
    if given.get("groups") is not None:
        given["groups"] = given["groups"].resolve()
    return OwnModel(**paths, **given).to_record()


def require_data(
    data: Path, config: str, contract: Path | None, own: dict[str, Any] | None
) -> None:  # fmt: skip
    """Find a misspelt path at once, not after Prefect and MLflow have come up."""
    if own is None:
        from flows.cli.fraud_model import require_inputs

        require_inputs(data, config, contract)


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
    seed: int = 0,
) -> dict[str, Any]:
    """Run the flow of cases and show its steps."""
    from flows.cli.progress import shown

    require_data(data, config, contract, own)
    with shown(f"explaining {data.name}", console):
        from flows.explain_cases import explain_cases

        shield_flow()
        record: dict[str, Any] = explain_cases(
            str(data), str(out.resolve()), config, keys=keys, worst=worst,
            contract=_text(contract), own=own, seed=seed,
        )  # fmt: skip
    return record


def show_cases(console: Console, record: dict[str, Any]) -> None:
    """Print each case with its reasons, and where to look."""
    for one in record["cases"]:
        decided = one["decision"] or "not flagged"
        console.print(f"{printable(one['key'])}: {decided} at {one['score']:.4f}", highlight=False)
        for reason in one["reasons"]:
            bar = f" ± {reason['error']:.2f}" if reason["error"] else ""
            tie = "  (tied with the next)" if reason["tie"] else ""
            line = f"  {reason['contribution']:+.2f}{bar}  {printable(reason['text'])}{tie}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {nearby(one['page'])}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run']['page']}", soft_wrap=True, highlight=False)


def show_model(console: Console, record: dict[str, Any]) -> None:
    """Print what drives the scores, how sure that is, and where to look."""
    from rich.table import Table

    table = Table("player", "mean |contribution|", title=f"{record['rows']:,} rows explained")
    for label, strength in record["strongest"]:
        table.add_row(printable(label), f"{strength:.4g}")
    console.print(table)
    figures = record["metrics"]
    console.print(f"largest additivity gap {figures['shap/additivity_max']:.1e}", highlight=False)
    if "shap/top4_stability" in figures:
        share = figures["shap/top4_stability"]
        console.print(f"{share:.1%} of the top reasons stay over redraws", highlight=False)
    for alarm in record["alarms"]:
        console.print(printable(alarm), style="yellow", markup=False, soft_wrap=True)
    if record["undrifted"]:
        console.print(f"weeks not compared: {printable(record['undrifted'])}", soft_wrap=True)
    console.print(f"report: {nearby(record['report'])}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run']['page']}", soft_wrap=True, highlight=False)


def _text(path: Path | None) -> str:
    return str(path.resolve()) if path else ""
