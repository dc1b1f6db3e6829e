"""``penstock fraud init-config``, ``contract``, ``check``: from a file to usable transactions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.fraud.ingest.checks import CheckReport

File = Annotated[Path, typer.Argument(help="Parquet or CSV file.", show_default=False)]
Config = Annotated[
    str,
    typer.Option(
        help="Dataset config: a TOML file, or a shipped one's name (handbook, transfers)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the data commands to ``penstock fraud``."""
    app.command("init-config")(init_config)
    app.command("contract")(contract)
    app.command("check")(check)


def init_config(
    file: File,
    *,
    out: Annotated[Path | None, typer.Option(help="Where to write it [default: print].")] = None,
    name: Annotated[str, typer.Option(help="Name of the dataset [default: the file's].")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Propose a dataset config from a data file's columns."""
    from connectors.files import atomic_path, read_table
    from tasks.fraud.ingest.propose_config import ProposalError, propose, to_toml

    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another --out or add --force")
    try:
        config, notes = propose(read_table(file), name or file.stem)
    except ProposalError as error:
        raise ProposalError(f"{file}: {error}") from error
    text = to_toml(config, notes)
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {out}; read it, then: penstock fraud check {file} --config {out}")


def contract(
    *,
    config: Config,
    out: Annotated[Path | None, typer.Option(help="Where to write it [default: print].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the contract that a dataset config stands for, to add own lines to."""
    from connectors.transactions import write_contract
    from tasks.cleaning.contract.toml import to_toml
    from tasks.fraud.contract import transaction_contract
    from tasks.fraud.dataset import find_config

    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another --out or add --force")
    made = transaction_contract(find_config(config))
    if out is None:
        typer.echo(to_toml(made), nl=False)
        return
    write_contract(made, out)
    typer.echo(f"wrote {out}; add lines, then: penstock fraud check FILE --contract {out}")


def check(
    file: File,
    *,
    config: Config,
    contract: Annotated[
        Path | None, typer.Option(help="TOML of own lines that rows must meet besides.")
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Folder to which bad rows are written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a data file as training would, and count what it would use and refuse."""
    from connectors.transactions import load_transactions
    from tasks.cleaning.contract.toml import read_contract
    from tasks.fraud.dataset import find_config
    from tasks.fraud.ingest.checks import require_trainable

    described = find_config(config)
    own = None if contract is None else read_contract(contract)
    checked = load_transactions(file, described, quarantine, own=own)
    if as_json:
        typer.echo(json.dumps(checked.report.to_dict()))
    else:
        _show(checked.report)
    if described.label:
        require_trainable(checked.report.to_dict(), str(file))


def _show(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=Path(report.source).name, show_header=False)
    table.add_row("rows in the file", f"{report.rows_in:,}")
    table.add_row("used", f"{report.rows_used:,}")
    table.add_row("quarantined", f"{report.rows_quarantined:,} ({report.quarantine_share:.2%})")
    for rule, count in report.by_rule.items():
        table.add_row(f"  {rule}", f"{count:,}")
    table.add_row("out of time order, sorted", f"{report.unsorted:,}")
    table.add_row("first event", report.first_time)
    table.add_row("last event", report.last_time)
    table.add_row("days (without a known fraud)", f"{report.days} ({report.days_without_fraud})")
    table.add_row("frauds among labelled", f"{report.frauds:,} of {report.labelled:,}")
    table.add_row("unlabelled", f"{report.unlabelled:,}")
    for kind, count in report.entities.items():
        table.add_row(f"entities: {kind}", f"{count:,}")
    for column, count in report.missing.items():
        table.add_row(f"missing: {column}", f"{count:,}")
    Console().print(table)
