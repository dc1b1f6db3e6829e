"""A cleaning run over a file: read, clean, publish; and what a person does with it afterwards.

A run's folder holds, besides clean rows and quarantine (``outputs.py``), ``changes.parquet``,
``review.parquet``, ``contract.toml`` and ``report.html``. Undoing, accepting and requeueing publish
a new generation of the same files, so that they can be killed at any moment, too.
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
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.rows import DuplicateRule
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.doubts import ReviewConfig
from tasks.cleaning.ingest.options import ReadOptions
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import apply, extended, undo
from tasks.cleaning.repair.engine import RepairConfig
from tasks.cleaning.report.render import build_report, page_of

CHANGES, REVIEW = "changes.parquet", "review.parquet"
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
        now: The present, for records.

    Returns:
        What was published, rows numbered as in the file.

    Raises:
        TableReadError: When the file cannot be read at all.
        ContractError: When the table is not of the contract's kind.
        QuarantineLimitError: When too many rows are bad.
    """
    config, now = config or CleanConfig(), now or datetime.now(UTC)
    batch = read_whole(path, options or ReadOptions(time=now))
    frame = without_empty(batch.frame)
    inferred = contract is None
    contract = contract or infer(frame, path.stem)
    if duplicates and contract.duplicates is None:
        contract = replace(contract, duplicates=DuplicateRule())
    told = None if labels is None else labelled_rows(labels, frame.columns, batch.rows)
    cleaned = clean(frame, contract, path.name, config, labels=told, rows=batch.rows, now=now)
    done = renumbered(cleaned, batch.rows)
    quarantine = pa.concat_tables([batch.quarantine, done.quarantine]).sort_by("row")
    unread = batch.quarantine.num_rows
    counts = dict(done.counts)
    counts |= {
        "rows_in": batch.rows_in,
        "quarantined": counts["quarantined"] + unread,
        **_by_rule(batch.quarantine),
    }
    done = replace(done, quarantine=quarantine, counts=counts)
    facts = {
        "source": path.name,
        "inferred": inferred,
        "alpha": config.repair.alpha,
        "repairs": config.repairs,
        "detectors": config.review.detectors,
    }
    _publish(folder, done, contract, facts, kind, now, labels=labels)
    return done


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
        else without_empty(pl.read_csv(place.clean_path, infer_schema=False))
    )
    quarantine = pq.read_table(place.quarantine_path)
    facts = json.loads(place.attached(RUN).read_text(encoding="utf-8"))
    text = place.attached(CONTRACT).read_text(encoding="utf-8")
    return Run(
        place,
        frame,
        pl.Series("row", facts.pop("rows"), pl.Int64),
        quarantine,
        pl.read_parquet(place.attached(CHANGES)),
        pl.read_parquet(place.attached(REVIEW)),
        from_toml(text, source=str(place.attached(CONTRACT))),
        facts,
        pl.read_parquet(place.attached(LABELS)) if LABELS in place.digests else None,
    )


def undo_changes(folder: Path, chosen: pl.Expr) -> int:
    """Put cells of a run back to what they were, and publish that.

    Args:
        folder: Folder of the run.
        chosen: Condition over the columns of its changes.

    Returns:
        How many changes were taken back.

    Raises:
        OutputError: When there is no run, or nothing is chosen.
        ValueError: When the clean rows were altered since.
    """
    run = load_run(folder)
    picked = run.changes.filter(chosen)
    here = _placed(run)  # of rows in quarantine nothing is published, so nothing is put back
    if picked.join(here, on="order", how="semi").is_empty():
        raise OutputError(f"{folder}: no change of a clean row fits; {REPORT} shows them")
    frame, kept = undo(run.frame, here, pl.col("order").is_in(picked["order"].implode()))
    gone = here.join(kept, on="order", how="anti")
    changes = run.changes.join(gone, on="order", how="anti")
    _republish(run, frame=frame, changes=changes)
    return run.changes.height - changes.height


def decide(folder: Path, chosen: pl.Expr, *, accept: bool) -> int:
    """Accept suggestions of a run, or reject them so that they are not shown again.

    Args:
        folder: Folder of the run.
        chosen: Condition over the columns of its findings for review.
        accept: Whether the suggestions are carried out.

    Returns:
        How many findings were decided.

    Raises:
        OutputError: When there is no run, nothing is chosen, or a chosen finding has no suggestion.
    """
    run = load_run(folder)
    at = {row: i for i, row in enumerate(run.rows)}
    # Of two suggestions for a cell the surer one; a cell that was changed since keeps its value.
    picked = run.review.filter(chosen)
    if picked.is_empty():
        raise OutputError(f"{folder}: no finding fits; penstock clean review shows them")
    same = ["row", "column", "rule"]
    left = run.review.join(picked.select(same), on=same, how="anti", nulls_equal=True)
    if not accept:
        _republish(run, review=left)
        return picked.height
    picked = picked.unique(["row", "column"], keep="first", maintain_order=True)
    for one in picked.iter_rows(named=True):
        held = run.frame[at[one["row"]], one["column"]] if one["repairable"] else None
        if not one["repairable"] or held != one["observed"]:
            why = f"holds {held!r} by now" if one["repairable"] else "has no suggestion"
            raise OutputError(
                f"{folder}: row {one['row']}, column {one['column']!r} {why}; choose others, or "
                "reject it"
            )
    places = picked.with_columns(pl.col("row").replace_strict(at, return_dtype=pl.Int64))
    frame = apply(run.frame, places.rename({"suggestion": "after"}))
    by_hand = picked.with_columns(
        pl.format("accepted:{}", "rule").alias("rule"), pl.lit(1.0).alias("confidence")
    )
    changes = extended(run.changes, by_hand)
    left = left.join(picked.select("row", "column"), on=["row", "column"], how="anti")
    _republish(run, frame=frame, changes=changes, review=left)
    return picked.height


def requeue(folder: Path, contract: Contract | None = None, *, now: datetime | None = None) -> int:
    """Clean a run's rows again, the quarantined ones with them, by a mended contract.

    The rows are taken as they came: changes are undone and quarantined payloads read back. Rows
    that could not be read as rows at all stay in quarantine; mend the file for them.

    Args:
        folder: Folder of the run.
        contract: The mended contract; the run's own if None.
        now: The present, for records.

    Returns:
        How many rows came back.
    """
    run, now, given = load_run(folder), now or datetime.now(UTC), contract
    contract = given or run.contract
    original = as_it_came(run)
    back, known, unread = _payload_rows(run.quarantine, original.columns)
    numbers = np.concatenate([run.rows.to_numpy(), known])
    order = np.argsort(numbers, kind="stable")
    rows = pl.concat([original, back])[order.tolist()]
    config = CleanConfig(
        repair=RepairConfig(alpha=run.facts["alpha"]),
        repairs=run.facts["repairs"],
        review=ReviewConfig(detectors=run.facts["detectors"]),
    )
    numbers, source = numbers[order], run.facts["source"]
    told = None if run.labels is None else labelled_rows(run.labels, rows.columns, numbers)
    done = clean(rows, contract, source, config, labels=told, rows=numbers, now=now)
    done = renumbered(done, numbers)
    quarantine = pa.concat_tables([unread, done.quarantine]).sort_by("row")
    counts = dict(done.counts) | {
        "rows_in": run.place.rows_in,
        "quarantined": done.counts["quarantined"] + unread.num_rows,
        **_by_rule(unread),
    }
    facts = run.facts if given is None else run.facts | {"inferred": False}
    done = replace(done, quarantine=quarantine, counts=counts)
    _publish(folder, done, contract, facts, _kind(run.place), now, run.place.generation, run.labels)
    return len(set(run.quarantine["row"].to_pylist()) - set(quarantine["row"].to_pylist()))


def as_it_came(run: Run) -> pl.DataFrame:
    """Return a run's clean rows as they came: every change undone.

    Raises:
        ValueError: When the clean rows were altered since.
    """
    return undo(run.frame, _placed(run))[0]


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


def _payload_rows(
    quarantine: pa.Table, columns: list[str]
) -> tuple[pl.DataFrame, NDArray[np.int64], pa.Table]:
    """Return the rows that were set aside by a contract, their numbers, and all other records."""
    rows, numbers, unread = [], [], []
    for i, record in enumerate(quarantine.to_pylist()):
        # What the reader refused was no row, even where its bytes can be read as one.
        by_contract = record["detector_version"].startswith("clean/")
        row = json.loads(record["payload"]) if by_contract else {}
        if by_contract and list(row) == columns:
            rows.append(list(row.values()))
            numbers.append(record["row"])
        else:
            unread.append(i)
    read = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return read, np.array(numbers, np.int64), quarantine.take(pa.array(unread, pa.int64()))


def _publish(
    folder: Path,
    done: Cleaned,
    contract: Contract,
    facts: dict[str, Any],
    kind: OutputFormat,
    now: datetime,
    after: str = "",
    labels: pl.DataFrame | None = None,
) -> None:
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
        if labels is not None:
            labels.write_parquet(writer.attach(LABELS))
        writer.attach(CONTRACT).write_text(to_toml(contract), encoding="utf-8")
        writer.attach(RUN).write_text(json.dumps(record), encoding="utf-8")
        writer.attach(REPORT).write_text(build_report(page), encoding="utf-8")


def _republish(
    run: Run,
    *,
    frame: pl.DataFrame | None = None,
    changes: pl.DataFrame | None = None,
    review: pl.DataFrame | None = None,
) -> None:
    """Publish a run after a person's decision."""
    changes = run.changes if changes is None else changes
    repaired = set(changes["row"].to_list()) & set(run.rows.to_list())
    done = Cleaned(
        frame=run.frame if frame is None else frame,
        rows=run.rows,
        quarantine=run.quarantine,
        changes=changes,
        review=run.review if review is None else review,
        counts=run.facts["counts"] | {"repaired": len(repaired)},
        bounds={name: HarmBound(*both) for name, both in run.facts["bounds"].items()},
        promised_harm=run.facts["promised_harm"],
        fixed=run.facts["fixed"],
        notes=tuple(run.facts["notes"]),
    )
    kept = ("source", "inferred", "alpha", "repairs", "detectors")
    facts = {name: run.facts[name] for name in kept}
    _publish(
        run.place.folder,
        done,
        run.contract,
        facts,
        _kind(run.place),
        datetime.now(UTC),
        run.place.generation,
        run.labels,
    )


def _placed(run: Run) -> pl.DataFrame:
    """Return the changes of clean rows, each at its row's place among them."""
    at = pl.DataFrame({"row": run.rows, "_at": np.arange(len(run.rows))})
    here = run.changes.join(at, on="row", how="inner").with_columns(pl.col("_at").alias("row"))
    return here.drop("_at")


def _kind(place: Published) -> OutputFormat:
    return "parquet" if place.clean_path.suffix == ".parquet" else "csv"


def _by_rule(quarantine: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(quarantine["rule"]).to_pylist()
    return {f"quarantined:{one['values']}": one["counts"] for one in counts}
