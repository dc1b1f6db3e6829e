"""``penstock clean``: infer a contract, clean a file, look at what was done, and take it back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.clean_images import images
from flows.cli.clean_page import open_page
from flows.cli.clean_profile import profile
from flows.cli.clean_slices import slices

if TYPE_CHECKING:
    import polars as pl

    from connectors.cleaning.decisions import Outcome
    from connectors.cleaning.outputs import OutputFormat
    from tasks.cleaning.contract.model import Contract

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Clean tables and images.")
app.command("open")(open_page)
app.command()(slices)
app.command()(images)
app.command()(profile)

File = Annotated[
    Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet, also packed.", show_default=False)
]
RunFolder = Annotated[
    Path,
    typer.Argument(help="Folder of a run, as penstock clean run tells it.", show_default=False),
]
ContractFile = Annotated[
    Path | None, typer.Option("--contract", help="Contract [default: inferred from the file].")
]
Row = Annotated[int | None, typer.Option(help="Only this row of the source, from 0.")]
Column = Annotated[str, typer.Option(help="Only this column.")]
RuleName = Annotated[str, typer.Option("--rule", help="Only this rule, as the report names it.")]


@app.command()
def infer(
    file: File,
    *,
    out: Annotated[Path | None, typer.Option(help="Where to write it [default: print].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Propose a contract from a file; read and edit it."""
    from connectors.cleaning.run import without_empty
    from connectors.files import atomic_path
    from connectors.tables import read_whole
    from tasks.cleaning.contract.infer import infer as propose
    from tasks.cleaning.contract.toml import to_toml

    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} exists; choose another --out or add --force")
    text = to_toml(propose(without_empty(read_whole(file).frame), file.stem))
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(
        f"wrote {out}; edit it (a line taken out of 'confidence' is declared), then: "
        f"penstock clean run {file} --contract {out}"
    )


@app.command()
def run(
    file: File,
    *,
    contract: ContractFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: FILE.clean].")
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Clean rows as Parquet.")] = False,
    alpha: Annotated[
        float, typer.Option(help="Share of a column's correct cells a rule may change at most.")
    ] = 0.01,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Change nothing, only set bad rows aside.")
    ] = False,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Row by row in bounded memory; nothing across rows."),
    ] = False,
    now: Annotated[
        datetime | None,
        typer.Option(help="UTC time at which the table must be fresh [default: now]."),
    ] = None,
    duplicates: Annotated[
        bool,
        typer.Option("--duplicates", help="Show near-duplicate rows, too; see [duplicates]."),
    ] = False,
    detectors: Annotated[
        bool, typer.Option("--detectors/--no-detectors", help="Look for doubtful cells, too.")
    ] = True,
    labels: Annotated[
        Path | None, typer.Option(help="Labelled rows, as penstock clean label writes them.")
    ] = None,
) -> None:
    """Clean a file: repair, check, set aside, report."""
    from connectors.cleaning.labelling import read_labels
    from connectors.cleaning.outputs import published
    from connectors.cleaning.run import REPORT, clean_file
    from connectors.cleaning.stream import clean_stream
    from flows.cli.row_progress import row_progress
    from tasks.cleaning.clean import CleanConfig
    from tasks.cleaning.doubts import ReviewConfig
    from tasks.cleaning.repair.engine import RepairConfig
    from tasks.cleaning.report.render import percent

    if labels is not None and check_only:
        raise typer.BadParameter("--labels repair, --check-only does not: choose one")
    if stream and (labels is not None or duplicates):
        raise typer.BadParameter("--labels and --duplicates look at other rows, --stream does not")
    folder = out or Path(f"{file}.clean")
    config = CleanConfig(
        repair=RepairConfig(alpha=alpha),
        repairs=not check_only,
        review=ReviewConfig(detectors=detectors),
    )
    kind: OutputFormat = "parquet" if parquet else "csv"
    notes: tuple[str, ...] = ()
    if stream:
        with row_progress(file) as progress:
            seen = clean_stream(
                file,
                folder,
                _contract(contract),
                config=config,
                kind=kind,
                tables=contract and contract.parent,
                progress=progress,
            )
        counts, cells, harm, reviews = dict(seen.counts), seen.cells, 0.0, seen.reviews
    else:
        done = clean_file(
            file,
            folder,
            _contract(contract),
            config=config,
            kind=kind,
            now=now and now.replace(tzinfo=UTC),
            tables=contract and contract.parent,
            labels=None if labels is None else read_labels(labels),
            duplicates=duplicates,
        )
        notes, cells = done.notes, done.changes.select("row", "column").n_unique()
        counts, harm, reviews = dict(done.counts), done.promised_harm, done.review.height
    place = published(folder)
    assert place is not None  # noqa: S101 - just published
    typer.echo(
        f"{counts['rows_in']:,} rows in, {counts['clean']:,} clean ({counts['repaired']:,} "
        f"repaired), {counts['quarantined']:,} quarantined"
    )
    for name, number in counts.items():
        if name.startswith("quarantined:"):
            typer.echo(f"  {number:,} by {name.removeprefix('quarantined:')}")
    promise = (
        "spellings only"
        if stream
        else f"votes, typos and sensors change {percent(harm)} of the correct ones at most, "
        "as estimated"
    )
    typer.echo(f"{cells:,} cells changed; {promise}; {reviews:,} findings for review")
    for note in notes:
        typer.echo(f"note    {note}")
    typer.echo(f"clean   {place.clean_path}")
    typer.echo(f"report  {place.attached(REPORT)}")


@app.command()
def report(folder: RunFolder) -> None:
    """Say where a run's report and files are."""
    from connectors.cleaning.outputs import OutputError, published
    from connectors.cleaning.run import REPORT

    place = published(folder)
    if place is None:
        raise OutputError(f"{folder}: no run is published there; penstock clean run makes one")
    typer.echo(f"clean       {place.clean_path}")
    typer.echo(f"quarantine  {place.quarantine_path}")
    typer.echo(f"report      {place.attached(REPORT)}")


@app.command()
def review(
    folder: RunFolder,
    *,
    row: Row = None,
    column: Column = "",
    rule: RuleName = "",
    accept: Annotated[bool, typer.Option("--accept", help="Carry the suggestions out.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Show them no more.")] = False,
    limit: Annotated[int, typer.Option(help="Findings shown.", min=1)] = 20,
) -> None:
    """Show what a run left for a person; accept or reject it."""
    from connectors.cleaning.decisions import decide
    from connectors.cleaning.run import load_run

    chosen = _chosen(row, column, rule)
    if accept and reject:
        raise typer.BadParameter("choose --accept or --reject, not both")
    if accept or reject:
        done = decide(folder, chosen, accept=accept)
        _tell(done, f"{_some(done.number, 'finding')} {'accepted' if accept else 'rejected'}")
        return
    found = load_run(folder).review.filter(chosen).sort("confidence", descending=True)
    for one in found.head(limit).iter_rows(named=True):
        suggestion = repr(one["suggestion"]) if one["repairable"] else f"({one['expected']})"
        cell = f"{one['column']}: {one['observed']!r} -> {suggestion}"
        typer.echo(
            f"row {one['row']}  {cell if one['column'] else one['expected']}  "
            f"{one['rule']}; {one['premise']}"
        )
    if found.height > limit:
        typer.echo(f"{found.height - limit:,} more; see --limit, --column, --rule")
    elif found.is_empty():
        typer.echo("nothing is left to decide")


@app.command()
def label(
    folder: RunFolder,
    *,
    rows: Annotated[int, typer.Option(help="Rows asked for.", min=1, max=1_000)] = 5,
    out: Annotated[Path, typer.Option(help="File they are added to.")] = Path("labels.csv"),
) -> None:
    """Ask for the rows whose right values tell most: correct them in the file, then run again."""
    from connectors.cleaning.asking import rows_to_label
    from connectors.cleaning.labelling import extend, read_labels

    told = read_labels(out) if out.exists() else None
    asked = rows_to_label(folder, rows, told)
    extend(out, asked)
    typer.echo(
        f"{_some(asked.height, 'row')} added to {out}; put the right values there, then: "
        f"penstock clean run FILE --labels {out}"
    )


@app.command()
def undo(
    folder: RunFolder,
    *,
    row: Row = None,
    column: Column = "",
    rule: RuleName = "",
    everything: Annotated[bool, typer.Option("--all", help="Take back every change.")] = False,
) -> None:
    """Put cells back to what they were."""
    from connectors.cleaning.decisions import undo_changes

    if not (everything or row is not None or column or rule):
        raise typer.BadParameter("say which changes: --row, --column, --rule, or --all")
    done = undo_changes(folder, _chosen(row, column, rule))
    _tell(done, f"{_some(done.number, 'change')} undone")


@app.command()
def requeue(
    folder: RunFolder,
    *,
    contract: ContractFile = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was undone, accepted and rejected.")
    ] = False,
) -> None:
    """Bring quarantined rows back by a mended contract [default: the run's own]."""
    import polars as pl

    from connectors.cleaning.decisions import requeue as bring_back

    all_of_them = pl.lit(value=True) if forget else None
    done = bring_back(folder, _contract(contract), forget=all_of_them)
    _tell(done, f"{_some(done.number, 'row')} came back")


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A contract.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
) -> None:
    """Say what changed from one contract to another, and what got stricter."""
    from tasks.cleaning.contract.difference import differences
    from tasks.cleaning.contract.toml import read_contract

    found = differences(read_contract(before), read_contract(after))
    for one in found:
        place = f"{one.where}: " if one.where else ""
        typer.echo(f"{one.effect:<9} {place}{one.line} {one.before!r} -> {one.after!r}")
    if not found:
        typer.echo("no difference")


@app.command(name="contract-sql")
def contract_sql(
    contract: Annotated[Path, typer.Argument(help="A contract.", show_default=False)],
    *,
    table: Annotated[str, typer.Option(help="Table in Flink, all columns STRING.")],
    rows_only: Annotated[
        bool, typer.Option("--rows-only", help="Leave out what needs more than single rows.")
    ] = False,
) -> None:
    """Print a contract's rules over rows as a query of Flink SQL."""
    from tasks.cleaning.contract.rules import batch_only, flink_sql
    from tasks.cleaning.contract.toml import read_contract

    read = read_contract(contract)
    query = flink_sql(read, table, rows_only=rows_only)
    left = ", ".join(batch_only(read, inferred=True))
    if left:
        typer.echo(f"left out, for whole tables only: {left}", err=True)
    typer.echo(query)


def _tell(done: Outcome, what: str) -> None:
    typer.echo("; ".join(filter(None, (what, done.aftermath))))


def _some(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _contract(path: Path | None) -> Contract | None:
    from tasks.cleaning.contract.toml import read_contract

    return None if path is None else read_contract(path)


def _chosen(row: int | None, column: str, rule: str) -> pl.Expr:
    import polars as pl

    chosen = pl.lit(value=True)
    if row is not None:
        chosen &= pl.col("row") == row
    if column:
        chosen &= pl.col("column") == column
    if rule:
        chosen &= pl.col("rule") == rule
    return chosen
