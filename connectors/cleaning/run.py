"""A cleaning run over a file: read, clean, publish, read back.

A run's folder holds, besides clean rows and quarantine (``outputs.py``), ``changes.parquet``,
``review.parquet``, ``decisions.parquet``, ``contract.toml`` and ``report.html``. What a person does
with it (``decisions.py``) publishes a new generation of the same files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from connectors.cleaning.labelling import labelled_rows
from connectors.cleaning.outputs import OutputError, OutputFormat, Published, outputs, published
from connectors.tables import read_whole
from tasks.cleaning.clean import CleanConfig, Cleaned, clean
from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import Contract, ContractError
from tasks.cleaning.contract.rows import DuplicateRule
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.ingest.options import ReadOptions
from tasks.cleaning.repair.decisions import no_decisions
from tasks.cleaning.report.render import build_report, page_of

CHANGES, REVIEW, DECIDED = "changes.parquet", "review.parquet", "decisions.parquet"
CONTRACT, REPORT, RUN = "contract.toml", "report.html", "run.json"
LABELS = "labels.parquet"


@dataclass(frozen=True, slots=True)
class Run:
    """A published run, read back.

    Attributes:
        place: Its files.
        frame: Clean rows as texts.
        rows: int64 [clean rows] number of each in the source.
        quarantine: Records of the rows set aside.
        changes: Every change that stands.
        review: Findings that wait for a person.
        decisions: What persons have decided, in order.
        contract: What the table was held against.
        facts: Source, time, settings, counts, bounds and notes.
        labels: Rows whose right values somebody told, None without any.
    """

    place: Published
    frame: pl.DataFrame
    rows: pl.Series
    quarantine: pa.Table
    changes: pl.DataFrame
    review: pl.DataFrame
    decisions: pl.DataFrame
    contract: Contract
    facts: dict[str, Any]
    labels: pl.DataFrame | None


def clean_file(
    path: Path,
    folder: Path,
    contract: Contract | None = None,
    *,
    config: CleanConfig | None = None,
    kind: OutputFormat = "csv",
    options: ReadOptions | None = None,
    labels: pl.DataFrame | None = None,
    duplicates: bool = False,
    now: datetime | None = None,
    tables: Path | None = None,
) -> Cleaned:
    """Clean a file and publish the results.

    Args:
        path: Any file that ``connectors.tables`` reads.
        folder: Folder of the run; what was published there before is replaced in one step.
        contract: What the table must look like; inferred from it if None.
        config: How to clean.
        kind: Format of the clean rows.
        options: What is known of the file.
        labels: Rows whose right values somebody told (``labelling.py``).
        duplicates: Whether near-duplicates are looked for where the contract does not say so.
        now: The present, with its zone: for records, and to tell how old the table is.
        tables: Folder of the other tables that the contract's references name; the file's if None.

    Returns:
        What was published, rows numbered as in the file.

    Raises:
        TableReadError: When the file or a table of a reference cannot be read at all.
        ContractError: When the table is not of the contract's kind, too old, or labelled too badly.
        QuarantineLimitError: When too many rows are bad.
    """
    config, now = config or CleanConfig(), now or datetime.now(UTC)
    batch = read_whole(path, options or ReadOptions(time=now))
    frame = without_empty(batch.frame)
    inferred = contract is None
    contract = contract or infer(frame, path.stem)
    folder_of_tables = (tables or path.parent).resolve()
    others = read_references(contract, folder_of_tables)
    if duplicates and contract.duplicates is None:
        contract = replace(contract, duplicates=DuplicateRule())
    told = None if labels is None else labelled_rows(labels, frame.columns, batch.rows)
    done = clean(
        frame,
        contract,
        path.name,
        config,
        labels=told,
        rows=batch.rows,
        now=now,
        tables=others,
    )
    done = renumbered(done, batch.rows)
    quarantine = pa.concat_tables([batch.quarantine, done.quarantine]).sort_by("row")
    unread = batch.quarantine.num_rows
    counts = dict(done.counts)
    counts |= {
        "rows_in": batch.rows_in,
        "quarantined": counts["quarantined"] + unread,
        **by_rule(batch.quarantine),
    }
    done = replace(done, quarantine=quarantine, counts=counts)
    facts = {
        "source": path.name,
        "inferred": inferred,
        "alpha": config.repair.alpha,
        "repairs": config.repairs,
        "tables": str(folder_of_tables),
        "drop_copies": config.drop_copies,
        "across_rows": config.repair.across_rows,
        "detectors": config.review.detectors,
    }
    publish(folder, done, contract, facts, kind, now, labels=labels)
    return done


def read_references(contract: Contract, folder: Path) -> dict[str, pl.DataFrame]:
    """Read the other tables that a contract's references name.

    Raises:
        TableReadError: When one cannot be read at all.
        ContractError: When there is no such file.
    """
    found: dict[str, pl.DataFrame] = {}
    for reference in contract.references:
        path = folder / reference.table
        if not path.is_file():
            raise ContractError(
                f"reference {reference.name}: there is no file {path}; tables of references lie "
                "beside the contract"
            )
        if reference.table not in found:
            found[reference.table] = without_empty(read_whole(path).frame)
    return found


def load_run(folder: Path) -> Run:
    """Read a published run.

    Raises:
        OutputError: When there is none, or a file of it was altered.
    """
    place = published(folder, check=True)
    if place is None:
        raise OutputError(f"{folder}: no run is published there; penstock clean run makes one")
    frame = (
        pl.read_parquet(place.clean_path)
        if place.clean_path.suffix == ".parquet"
        # Its header is not read: Polars leaves quotes doubled in names.
        else without_empty(
            pl.read_csv(place.clean_path, infer_schema=False, new_columns=list(place.columns))
        )
    )
    quarantine = pq.read_table(place.quarantine_path)
    facts = json.loads(place.attached(RUN).read_text(encoding="utf-8"))
    text = place.attached(CONTRACT).read_text(encoding="utf-8")
    return Run(
        place,
        frame,
        _row_numbers(facts.pop("rows"), place, quarantine),
        quarantine,
        pl.read_parquet(place.attached(CHANGES)),
        pl.read_parquet(place.attached(REVIEW)),
        pl.read_parquet(place.attached(DECIDED)) if DECIDED in place.digests else no_decisions(),
        from_toml(text, source=str(place.attached(CONTRACT))),
        facts,
        pl.read_parquet(place.attached(LABELS)) if LABELS in place.digests else None,
    )


def without_empty(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which empty texts are missing: a CSV has no other way to say so."""
    return frame.with_columns(pl.when(pl.all() != "").then(pl.all()))


def renumbered(done: Cleaned, rows: NDArray[np.int64]) -> Cleaned:
    """Return results whose rows are numbered as in their source.

    Args:
        done: Results, rows numbered by their place in the table that was cleaned.
        rows: int64 [rows of that table] number of each in its source.
    """
    known = pl.Series("row", rows, pl.Int64)

    def column(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(known.gather(frame["row"]).alias("row"))

    place = done.quarantine.schema.get_field_index("row")
    numbers = pa.array(rows[done.quarantine["row"].to_numpy()], pa.int64())
    field = done.quarantine.schema.field(place)
    return replace(
        done,
        rows=known.gather(done.rows),
        quarantine=done.quarantine.set_column(place, field, numbers),
        changes=column(done.changes),
        review=column(done.review),
    )


def publish(
    folder: Path,
    done: Cleaned,
    contract: Contract,
    facts: dict[str, Any],
    kind: OutputFormat,
    now: datetime,
    *,
    decisions: pl.DataFrame | None = None,
    after: str = "",
    labels: pl.DataFrame | None = None,
) -> None:
    """Publish a run's files together.

    Args:
        folder: Folder of the run.
        done: What was made of the table, rows numbered as in the source.
        contract: What it was held against.
        facts: ``source``, ``inferred`` and the settings of the run; what is counted here replaces
            what they say of it.
        kind: Format of the clean rows.
        now: The present, for records.
        decisions: What persons have decided.
        after: Generation that this was made from; "" for a run.
        labels: Rows whose right values somebody told.

    Raises:
        OutputBusyError: When another process writes there, or has since ``after``.
    """
    page = page_of(
        done,
        contract,
        source=facts["source"],
        folder=str(folder),
        inferred=facts["inferred"],
        alpha=facts["alpha"],
        time=now,
    )
    record = facts | {
        "time": now.isoformat(),
        "counts": dict(done.counts),
        "promised_harm": done.promised_harm,
        "bounds": {name: [b.exceptions, b.cells] for name, b in done.bounds.items()},
        "fixed": done.fixed,
        "rows": done.rows.to_list(),
        "notes": list(done.notes),
    }
    with outputs(folder, facts["source"], kind, after=after) as writer:
        writer.write(done.frame, done.quarantine, done.counts["rows_in"])
        done.changes.write_parquet(writer.attach(CHANGES))
        done.review.write_parquet(writer.attach(REVIEW))
        (no_decisions() if decisions is None else decisions).write_parquet(writer.attach(DECIDED))
        if labels is not None:
            labels.write_parquet(writer.attach(LABELS))
        writer.attach(CONTRACT).write_text(to_toml(contract), encoding="utf-8")
        writer.attach(RUN).write_text(json.dumps(record), encoding="utf-8")
        writer.attach(REPORT).write_text(build_report(page), encoding="utf-8")


def _row_numbers(rows: list[int] | None, place: Published, quarantine: pa.Table) -> pl.Series:
    """Return the number of each clean row; where none were kept, as those not in quarantine."""
    if rows is not None:
        return pl.Series("row", rows, pl.Int64)
    aside = quarantine["row"].to_numpy()  # those above a header are numbered below 0
    clean = np.ones(place.rows_in - int((aside < 0).sum()), bool)
    clean[aside[aside >= 0]] = False
    return pl.Series("row", np.flatnonzero(clean), pl.Int64)


def kind_of(place: Published) -> OutputFormat:
    """Return the format of the clean rows."""
    return "parquet" if place.clean_path.suffix == ".parquet" else "csv"


def by_rule(quarantine: pa.Table) -> dict[str, int]:
    """Return how many records each rule has, as ``counts`` names them."""
    counts = pc.value_counts(quarantine["rule"]).to_pylist()
    return {f"quarantined:{one['values']}": one["counts"] for one in counts}
