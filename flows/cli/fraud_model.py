"""``penstock fraud train``, ``evaluate``, ``score`` and ``report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import open_console, shield_flow
from flows.cli.paths import nearby

if TYPE_CHECKING:
    from rich.console import Console

Data = Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)]
Config = Annotated[
    str,
    typer.Option(
        help="Dataset config: a TOML file, or a shipped one's name (handbook, transfers)."
    ),
]
OwnContract = Annotated[
    Path | None,
    typer.Option("--contract", help="TOML of own lines; rows that break one are set aside, too."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Report = Annotated[
    Path | None, typer.Option(help="HTML report to write [default: in the home folder].")
]
Settings = Annotated[
    Path | None, typer.Option(help="TOML file of training settings: [trees], [network] ...")
]
Graph = Annotated[
    bool, typer.Option("--graph/--no-graph", help="Train the graph part beside the trees.")
]

ROOM_MIB = 64  # databases of Prefect and MLflow, and the work of a small file


def register(app: typer.Typer) -> None:
    """Add the model commands to ``penstock fraud``."""
    for command in (train, evaluate, score, report):
        app.command()(command)


def train(
    data: Data,
    *,
    config: Config = "handbook",
    contract: OwnContract = None,
    settings: Settings = None,
    report: Report = None,
    graph: Graph = True,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Publish the model and compare it.")
    ] = True,
    margin: Annotated[
        float, typer.Option(help="Average precision by which it must beat the champion.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Train, judge, register and (if it deserves it) promote a fraud model."""
    console = open_console()
    record = run_training(
        console,
        data,
        config,
        {"graph": graph} | read_settings(settings),
        contract=contract,
        report=report,
        promote=promote,
        margin=margin,
    )
    show_training(console, record)
    if as_json:
        typer.echo(json.dumps(brief_training(record)))


def evaluate(
    data: Data,
    *,
    config: Config = "handbook",
    contract: OwnContract = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder [default: the serving model].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model by the protocol on the newest labelled days of a file."""
    console = open_console()
    from flows.cli.progress import shown

    with shown("judging", console):
        from flows.evaluate_model import evaluate_model

        record = evaluate_model(data, config, bundle, contract)
    from rich.table import Table

    table = Table("head", "AP", "AUC", "CP@100", "R@1%FPR", title=record["test"])
    for head, result in record["heads"].items():
        values = [result[name] for name in ("ap", "auc", "cp", "r1")]
        table.add_row(head, *("–" if v is None else f"{v:.4f}" for v in values))
    console.print(table)
    if record["seen"]:
        console.print("the model learnt from these days: the figures flatter it", style="yellow")
    if as_json:
        typer.echo(json.dumps(record))


def score(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(help="File for the scores, .parquet or .csv.")],
    config: Config = "handbook",
    contract: OwnContract = None,
    days: Annotated[
        float, typer.Option(min=0, help="Whole days to score, from the last back; 0: all.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Score the last days of a file with the serving model."""
    console = open_console()
    record = run_scoring(console, data, out, config, days, contract=contract)
    console.print(
        f"{record['rows']:,} transactions scored by {record['model']} version "
        f"{record['version']}, {record['alerts']:,} alerts: {nearby(record['out'])}",
        soft_wrap=True,
        highlight=False,
    )
    if as_json:
        typer.echo(json.dumps(record))


def report(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    config: Config = "handbook",
    contract: OwnContract = None,
    settings: Settings = None,
    graph: Graph = True,
) -> None:
    """Write the report of a file's model; what is trained already is not trained again."""
    console = open_console()
    chosen = {"graph": graph} | read_settings(settings)
    record = run_training(
        console, data, config, chosen, contract=contract, report=out, promote=False
    )
    console.print(f"report: {nearby(record['report'])}", soft_wrap=True, highlight=False)


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read training settings; none: empty.

    Raises:
        ValueError: When the file is missing or no TOML.
    """
    import tomllib

    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"training settings {path} cannot be read: {error}") from error


def require_inputs(data: Path, config: str, contract: Path | None) -> None:
    """Find a misspelt path or a full disk at once, not after Prefect and MLflow have come up."""
    from connectors.files import require_file
    from infra.files import require_room
    from infra.settings import get_settings
    from tasks.cleaning.contract.toml import read_contract
    from tasks.fraud.contract import contract_of
    from tasks.fraud.dataset import find_config

    require_file(data)
    described = find_config(config)
    if contract is not None:
        contract_of(described, read_contract(contract))
    require_room(get_settings().home, ROOM_MIB)


def run_training(
    console: Console,
    data: Path,
    config: str,
    settings: dict[str, Any],
    *,
    contract: Path | None = None,
    report: Path | None = None,
    promote: bool = True,
    margin: float = 0.0,
) -> dict[str, Any]:
    """Run the training flow and show its steps."""
    from flows.cli.progress import shown

    require_inputs(data, config, contract)
    if report is not None and report.is_dir():
        raise ValueError(f"{report} is a folder; name an .html file in it with --report")

    with shown(f"training on {data.name}", console):
        from flows.train_fraud import train_fraud

        shield_flow()
        record: dict[str, Any] = train_fraud(
            str(data),
            config,
            settings,
            contract=str(contract.resolve()) if contract else "",
            report=str(report.resolve()) if report else "",
            promote=promote,
            margin=margin,
        )
    return record


def run_scoring(
    console: Console,
    data: Path,
    out: Path,
    config: str,
    days: float,
    *,
    contract: Path | None = None,
) -> dict[str, Any]:
    """Run the scoring flow and show its steps."""
    from flows.cli.progress import shown

    require_inputs(data, config, contract)

    with shown(f"scoring {data.name}", console):
        from flows.score_batch import score_batch

        shield_flow()
        record: dict[str, Any] = score_batch(
            str(data),
            str(out.resolve()),
            config,
            contract=str(contract.resolve()) if contract else "",
            days=days,
        )
    return record


def show_training(console: Console, record: dict[str, Any]) -> None:
    """Print the figures, the decision and where to look."""
    from rich.table import Table

    test = record["trained"]["metrics"]["test"]
    table = Table("head", "AP", "95 % interval", "AUC", "CP@100", "R@1%FPR", title="test folds")
    for head, values in test.items():
        low, high = values["ap_interval"]
        cells = [f"{values[n]:.4f}" if n in values else "–" for n in ("auc", "cp", "r1")]
        name = f"{head} (ships)" if head == record["trained"]["active"] else head
        table.add_row(name, f"{values['ap']:.4f}", f"{low:.3f} to {high:.3f}", *cells)
    console.print(table)
    promotion = record["promotion"]
    if promotion:
        verdict = "serves now" if promotion["promoted"] else "does not serve"
        console.print(
            f"version {promotion['version']} of {promotion['model']} {verdict}: "
            f"{promotion['reason']}",
            highlight=False,
        )
    console.print(f"report: {nearby(record['report'])}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {record['run_page']}", soft_wrap=True, highlight=False)


def brief_training(record: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a training record that scripts read."""
    trained = record["trained"]
    return {
        "active": trained["active"],
        "test": trained["metrics"]["test"],
        "promotion": record["promotion"],
        "report": record["report"],
        "bundle": record["bundle"],
        "run_id": record["run_id"],
        "seconds": record["seconds"],
    }
