"""What a person does with a cleaning run: take changes back, decide on suggestions, requeue.

Each publishes a new generation of the run's files (``outputs.py``), so that it can be killed at any
moment, and is put down in ``decisions.parquet``, so that requeueing does not forget it. A row that
breaks a declared rule by a decision is set aside under that rule; it comes back when the cell is
mended, undone or forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from connectors.cleaning.labelling import labelled_rows
from connectors.cleaning.outputs import OutputBusyError, OutputError
from connectors.cleaning.run import (
    REPORT,
    Run,
    by_rule,
    kind_of,
    load_run,
    publish,
    read_references,
    renumbered,
)
from connectors.cleaning.touched import (
    Touched,
    records_of,
    rows_as_they_came,
    still_merged,
    touched_rows,
)
from tasks.cleaning.clean import CleanConfig, Cleaned, clean
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.doubts import ReviewConfig
from tasks.cleaning.recheck import check_again
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import apply, as_changes, held, undo
from tasks.cleaning.repair.decisions import ACCEPTED, DECISIONS, REJECTED, UNDONE
from tasks.cleaning.repair.engine import RepairConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision did.

    Attributes:
        number: Changes undone, findings decided, or rows that a requeue brought back.
        aside: By rule, rows that break it now and were set aside.
        back: Rows that came back out of quarantine.
    """

    number: int
    aside: Mapping[str, int] = field(default_factory=dict)
    back: int = 0

    @property
    def aftermath(self) -> str:
        """What happened to rows, for people; "" where nothing did.

        >>> Outcome(1, {"kind:weight": 2}).aftermath
        '2 rows break kind:weight now and were set aside'
        """
        told = [
            f"{n:,} {'row breaks' if n == 1 else 'rows break'} {rule} now and "
            f"{'was' if n == 1 else 'were'} set aside"
            for rule, n in self.aside.items()
        ]
        if self.back:
            told.append(f"{self.back:,} {'row' if self.back == 1 else 'rows'} came back")
        return "; ".join(told)


def undo_changes(
    folder: Path, chosen: pl.Expr, *, seen: str = "", now: datetime | None = None
) -> Outcome:
    """Put cells of a run back to what they were, and publish that.

    A row in quarantine by a contract's rule is held against the contract again, and comes back if
    it breaks none.

    Args:
        folder: Folder of the run.
        chosen: Condition over the columns of its changes.
        seen: Generation that the person saw; "" for whichever is published.
        now: The present, for records.

    Raises:
        OutputBusyError: When the run is another generation by now.
        OutputError: When there is no run, nothing is chosen, or too many rows would be set aside.
        ValueError: When the clean rows were altered since.
    """
    run, now = _load(folder, seen), now or datetime.now(UTC)
    picked = run.changes.filter(chosen)
    taken = touched_rows(run, picked["row"])
    here = taken.placed(run.changes)
    if picked.join(here, on="order", how="semi").is_empty():
        raise OutputError(f"{folder}: no change fits; {REPORT} shows them")
    frame, kept = undo(taken.frame, here, pl.col("order").is_in(picked["order"].implode()))
    gone = here.join(kept, on="order", how="anti").sort("order")
    cells = gone.group_by("row", "column", maintain_order=True).agg(
        pl.col("rule").first(), pl.col("before").first(), pl.col("after").last()
    )
    said = cells.select(
        pl.Series("row", taken.numbers).gather(cells["row"]),
        "column",
        "rule",
        pl.col("after").alias("before"),
        pl.col("before").alias("after"),
    )
    run = replace(
        run,
        changes=run.changes.join(gone, on="order", how="anti"),
        decisions=_with(run.decisions, said, UNDONE, now),
    )
    return replace(_settle(run, taken, frame, now), number=gone.height)


def decide(
    folder: Path, chosen: pl.Expr, *, accept: bool, seen: str = "", now: datetime | None = None
) -> Outcome:
    """Accept suggestions of a run, or reject them so that they are not shown again.

    Args:
        folder: Folder of the run.
        chosen: Condition over the columns of its findings for review.
        accept: Whether the suggestions are carried out.
        seen: Generation that the person saw; "" for whichever is published.
        now: The present, for records.

    Raises:
        OutputBusyError: When the run is another generation by now.
        OutputError: When there is no run, nothing is chosen, a chosen finding has no suggestion,
            or too many rows would be set aside.
    """
    run, now = _load(folder, seen), now or datetime.now(UTC)
    numbered = run.review.with_row_index("_finding")
    picked = numbered.filter(chosen)
    if picked.is_empty():
        raise OutputError(f"{folder}: no finding fits; penstock clean review shows them")
    if not accept:
        run = replace(
            run,
            review=numbered.join(picked, on="_finding", how="anti").drop("_finding"),
            decisions=_with(run.decisions, _said(picked), REJECTED, now),
        )
        _republish(run, now)
        return Outcome(picked.height)
    # Of two suggestions for a cell the first; the other falls away with it.
    picked = picked.unique(["row", "column"], keep="first", maintain_order=True)
    taken = touched_rows(run, picked["row"])
    places = taken.placed(picked)
    _require_open(folder, picked, places, taken)
    frame = apply(taken.frame, places.rename({"suggestion": "after"}))
    by_hand = picked.with_columns(
        pl.format("accepted:{}", "rule").alias("rule"), pl.lit(1.0).alias("confidence")
    )
    first = 0 if run.changes.is_empty() else int(run.changes["order"].to_numpy().max()) + 1
    run = replace(
        run,
        changes=run.changes.vstack(as_changes(by_hand, first=first, turn=0)),
        review=run.review.join(picked, on=["row", "column"], how="anti"),
        decisions=_with(run.decisions, _said(picked), ACCEPTED, now),
    )
    return replace(_settle(run, taken, frame, now), number=picked.height)


def requeue(
    folder: Path,
    contract: Contract | None = None,
    *,
    forget: pl.Expr | None = None,
    seen: str = "",
    now: datetime | None = None,
) -> Outcome:
    """Clean a run's rows again, the quarantined ones with them, by a mended contract.

    The rows are taken as they came: changes are undone and quarantined payloads read back. What a
    person decided holds again: an undone cell stays as it was put back, an accepted suggestion is
    carried out where the cell holds what it held, a rejected one is not made. Rows that could not
    be read as rows at all stay in quarantine; mend the file for them.

    Args:
        folder: Folder of the run.
        contract: The mended contract; the run's own if None.
        forget: Condition over the columns of its decisions: those that no longer hold.
        seen: Generation that the person saw; "" for whichever is published.
        now: The present, for records.

    Raises:
        OutputBusyError: When the run is another generation by now.
        OutputError: When there is no run, or no decision to forget.
        ContractError: When the table is not of the contract's kind.
        QuarantineLimitError: When too many rows are bad.
    """
    run, now, given = _load(folder, seen), now or datetime.now(UTC), contract
    contract = given or run.contract
    decisions = run.decisions
    if forget is not None:
        decisions = decisions.filter(~forget)
        if decisions.height == run.decisions.height:
            raise OutputError(f"{folder}: no decision fits; nothing was forgotten")
    rows, numbers, unread = rows_as_they_came(run)
    done = clean(
        rows,
        contract,
        run.facts["source"],
        _config(run),
        labels=None if run.labels is None else labelled_rows(run.labels, rows.columns, numbers),
        rows=numbers,
        now=now,
        tables=_tables(run, contract),
        decisions=Touched(rows, numbers).placed(decisions),
    )
    done = renumbered(done, numbers)
    quarantine = pa.concat_tables([unread, done.quarantine]).sort_by("row")
    counts = dict(done.counts) | {
        "rows_in": run.place.rows_in,
        "quarantined": done.counts["quarantined"] + unread.num_rows,
        **by_rule(unread),
    }
    facts = run.facts if given is None else run.facts | {"inferred": False}
    done = replace(done, quarantine=quarantine, counts=counts)
    place = run.place
    publish(
        folder, done, contract, facts, kind_of(place), now,
        decisions=decisions, after=place.generation, labels=run.labels,
    )  # fmt: skip
    was, now_aside = (set(one["row"].to_pylist()) for one in (run.quarantine, quarantine))
    return Outcome(len(was - now_aside), _rules_of(records_of(quarantine, now_aside - was)))


def _load(folder: Path, seen: str) -> Run:
    run = load_run(folder)
    if seen and run.place.generation != seen:
        raise OutputBusyError(f"{folder}: another process has changed the results; look again")
    return run


def _require_open(folder: Path, picked: pl.DataFrame, places: pl.DataFrame, taken: Touched) -> None:
    """Refuse what cannot be accepted.

    Raises:
        OutputError: When a finding has no suggestion, its cell holds something else by now, or its
            row cannot be read.
    """
    if places.height < picked.height:
        raise OutputError(f"{folder}: a row of these was never read; mend the file and run it")
    # First, for a finding about a whole row names no column, and holds no cell.
    unfit, why = picked.filter(~pl.col("repairable")), "has no suggestion"
    if unfit.is_empty():
        now = picked.with_columns(held(taken.frame, places))
        unfit = now.filter(pl.col("held").ne_missing(pl.col("observed")))
        if unfit.is_empty():
            return
        why = f"holds {unfit['held'][0]!r} by now"
    row, column = unfit.select("row", "column").row(0)
    where = f"row {row}, column {column!r}" if column else f"row {row}"
    raise OutputError(f"{folder}: {where} {why}; choose others, or reject it")


def _settle(run: Run, taken: Touched, frame: pl.DataFrame, now: datetime) -> Outcome:
    """Hold the touched rows against the contract again, and publish every row where it belongs."""
    rows = taken.touched
    ours = Touched(frame[rows.tolist()], taken.numbers[rows])
    original, _ = undo(ours.frame, ours.placed(run.changes))
    records, bad = check_again(
        frame,
        taken.numbers,
        rows,
        original,
        run.facts["source"],
        run.contract,
        _config(run),
        now=now,
        tables=_tables(run, run.contract),
    )
    at = records.schema.get_field_index("row")
    numbers = pa.array(ours.numbers[records["row"].to_numpy()], pa.int64())
    records = records.set_column(at, records.schema.field(at), numbers)
    clean_numbers = np.setdiff1d(taken.numbers, ours.numbers[bad])
    still = still_merged(run, ours.numbers[~bad], clean_numbers)
    records = pa.concat_tables([records, still])
    bad |= np.isin(ours.numbers, still["row"].to_numpy())
    before = run.quarantine.num_rows
    others = run.quarantine.filter(
        pc.invert(pc.is_in(run.quarantine["row"], pa.array(taken.aside, pa.int64())))
    )
    quarantine = pa.concat_tables([others, records]).sort_by("row")
    limit, total = run.contract.max_quarantine_share, run.place.rows_in
    if before < quarantine.num_rows > limit * total:
        raise OutputError(
            f"{run.place.folder}: {int(bad.sum()):,} rows would break {_most(records)}, and more "
            f"than the allowed {limit:.0%} be set aside; choose fewer, or requeue with a contract "
            "that allows them"
        )
    kept = np.ones(frame.height, bool)
    kept[rows[bad]] = False
    places = np.flatnonzero(kept)
    places = places[np.argsort(taken.numbers[places], kind="stable")]
    clean_rows = pl.Series("row", taken.numbers[places], pl.Int64)
    run = replace(run, frame=frame[places.tolist()], rows=clean_rows, quarantine=quarantine)
    _republish(run, now)
    were, known = set(taken.aside.tolist()), set(records["row"].to_pylist())
    return Outcome(0, _rules_of(records_of(records, known - were)), len(were - known))


def _republish(run: Run, now: datetime) -> None:
    """Publish a run after a person's decision."""
    repaired = run.changes["row"].unique().is_in(run.rows.implode())
    done = Cleaned(
        frame=run.frame,
        rows=run.rows,
        quarantine=run.quarantine,
        changes=run.changes,
        review=run.review,
        counts={
            "rows_in": run.place.rows_in,
            "clean": run.frame.height,
            "repaired": int(repaired.sum()),
            "quarantined": run.quarantine.num_rows,
            **by_rule(run.quarantine),
        },
        bounds={name: HarmBound(*both) for name, both in run.facts["bounds"].items()},
        promised_harm=run.facts["promised_harm"],
        fixed=run.facts["fixed"],
        notes=tuple(run.facts.get("notes", ())),
    )
    place = run.place
    publish(
        place.folder, done, run.contract, run.facts, kind_of(place), now,
        decisions=run.decisions, after=place.generation, labels=run.labels,
    )  # fmt: skip


def _said(picked: pl.DataFrame) -> pl.DataFrame:
    """Return findings as decisions say them."""
    return picked.rename({"observed": "before", "suggestion": "after"})


def _with(
    decisions: pl.DataFrame, cells: pl.DataFrame, decision: str, now: datetime
) -> pl.DataFrame:
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    repairable = pl.col("repairable") if "repairable" in cells.columns else pl.lit(value=True)
    new = cells.with_columns(
        pl.lit(now).alias("time"),
        pl.lit(user).alias("user"),
        pl.lit(decision).alias("decision"),
        repairable.alias("repairable"),
    ).select(pl.col(name).cast(kind) for name, kind in DECISIONS.items())
    return decisions.vstack(new)


def _config(run: Run) -> CleanConfig:
    return CleanConfig(
        RepairConfig(alpha=run.facts["alpha"], across_rows=run.facts.get("across_rows", True)),
        repairs=run.facts["repairs"],
        drop_copies=run.facts.get("drop_copies", True),
        fresh=False,  # the rows were fresh when they came
        review=ReviewConfig(detectors=run.facts.get("detectors", True)),
    )


def _tables(run: Run, contract: Contract) -> Mapping[str, pl.DataFrame]:
    return read_references(contract, Path(run.facts.get("tables", ".")))


def _rules_of(records: pa.Table) -> dict[str, int]:
    return {name.removeprefix("quarantined:"): n for name, n in by_rule(records).items()}


def _most(records: pa.Table) -> str:
    counts = _rules_of(records)
    return max(counts, key=lambda rule: counts[rule])
