"""Near-duplicates of a table as its contract asks for them: shown, or set aside and on record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.contract.rows import DuplicateRule
from tasks.cleaning.contract.rules import RowRule
from tasks.cleaning.duplicates.comparison import Comparison
from tasks.cleaning.duplicates.infer import infer_comparisons
from tasks.cleaning.duplicates.linkage import VERSION, Duplicates, Linkage, find_duplicates
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows
from tasks.cleaning.repair.changes import apply, extended
from tasks.cleaning.repair.decisions import no_decisions, undecided
from tasks.cleaning.repair.engine import Repaired
from tasks.cleaning.repair.lawful import lawful

log = logging.getLogger(__name__)

RULE = "duplicate-of"
MOST_INFERRED = 6
"""Columns compared where the contract names none: every two of them are tried as blocking keys."""
MOST_ROWS_INFERRED = 50_000
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergedRows:
    """What became of rows that mean the same entity.

    Attributes:
        rows: int64 [set aside] their places in the table.
        records: Of the rows set aside.
        findings: Of rows that are only shown.
        repaired: The table, missing cells of kept rows filled where that was asked for.
        notes: Why nothing was looked for.
    """

    rows: Rows
    records: pa.Table
    findings: pl.DataFrame
    repaired: Repaired
    notes: tuple[str, ...]


def merged_rows(
    original: pl.DataFrame,
    repaired: Repaired,
    good: NDArray[np.bool_],
    rule: DuplicateRule | None,
    numbers: Rows,
    source: str,
    now: datetime,
    *,
    rules: Sequence[RowRule] = (),
    decisions: pl.DataFrame | None = None,
) -> MergedRows:
    """Look for near-duplicates among the rows that nothing else speaks against.

    Args:
        original: Texts as they came.
        repaired: What the repair made of them.
        good: bool [rows] which rows are looked at.
        rule: What is compared and what becomes of duplicates; None for nothing.
        numbers: int64 [rows] number of each row in its source.
        source: Name of the file, for records.
        now: The present, for records.
        rules: Of ``row_rules``: what filled rows must keep.
        decisions: What a person decided about cells of the table (``repair/decisions.py``).
    """
    nothing = MergedRows(np.empty(0, np.int64), empty_quarantine(), joined([]), repaired, ())
    if rule is None:
        return nothing
    kept = np.flatnonzero(good)
    frame = repaired.frame[kept.tolist()]
    near, notes = near_duplicates(frame, rule)
    for note in notes:
        log.warning(note)
    nothing = replace(nothing, notes=tuple(notes))
    if near is None or not near.merged.any():
        return nothing
    places = pl.Series("row", kept, pl.Int64)
    if rule.action == "review":
        found = duplicate_findings(near, numbers[kept])
        return replace(nothing, findings=found.with_columns(places.gather(found["row"])))
    if rule.fill:
        decisions = no_decisions() if decisions is None else decisions
        found = fills(frame, near)
        found = undecided(found.with_columns(places.gather(found["row"])), decisions)
        left = np.setdiff1d(kept, kept[near.merged])
        repaired = _filled(repaired, _lawful_among(repaired.frame, left, found, rules))
    merged = np.flatnonzero(near.merged)
    records = duplicate_records(
        original.to_arrow(), kept[merged], numbers[kept[near.entity[merged]]],
        near.confidence[merged], source, now,
    )  # fmt: skip
    return MergedRows(kept[merged], records, joined([]), repaired, nothing.notes)


def _lawful_among(
    frame: pl.DataFrame, left: Rows, found: pl.DataFrame, rules: Sequence[RowRule]
) -> pl.DataFrame:
    """Return the fills after which the rows that are left keep the rules."""
    place = np.searchsorted(left, found["row"].to_numpy())
    here = found.with_columns(pl.Series("row", place, pl.Int64))
    good = lawful(frame[left.tolist()], here, rules)
    return good.with_columns(pl.Series("row", left, pl.Int64).gather(good["row"]))


def _filled(repaired: Repaired, found: pl.DataFrame) -> Repaired:
    return replace(
        repaired,
        frame=apply(repaired.frame, found.rename({"suggestion": "after"})),
        changes=extended(repaired.changes, found),
    )


def near_duplicates(
    frame: pl.DataFrame, rule: DuplicateRule
) -> tuple[Duplicates | None, list[str]]:
    """Find rows that mean the same entity.

    Args:
        frame: Texts.
        rule: What is compared, and how sure a link must be.

    Returns:
        What was found, None where nothing could be compared, and notes that say why.
    """
    if frame.height < 2:
        return None, []
    if rule.columns:
        comparisons = tuple(Comparison(name, kind) for name, kind in rule.columns.items())  # type: ignore[arg-type]
    else:
        if frame.height > MOST_ROWS_INFERRED:
            note = f"duplicates not looked for among {frame.height:,} rows: name the columns that "
            return None, [f"{note}tell rows apart in [duplicates] columns"]
        found = infer_comparisons(frame)
        distinct = {one.column: frame[one.column].n_unique() for one in found}
        telling = sorted(found, key=lambda one: -distinct[one.column])[:MOST_INFERRED]
        comparisons = tuple(one for one in found if one in telling)
    if not comparisons:
        return None, ["duplicates not looked for: no column tells rows apart"]
    try:
        near = find_duplicates(frame, Linkage(comparisons, precision=rule.precision))
    except ValueError as error:
        return None, [f"duplicates not looked for: {error}"]
    if not near.pairs.model.plausible:
        return near, ["no duplicates linked: the comparisons do not tell two kinds of pairs apart"]
    return near, []


def duplicate_findings(near: Duplicates, numbers: Rows) -> pl.DataFrame:
    """Return a finding for every row that is not the first of its entity; its column is ``""``.

    Args:
        near: What was found.
        numbers: int64 [rows] number of each row in its source, which texts name.
    """
    rows = np.flatnonzero(near.merged)
    cells = pl.DataFrame(
        {
            "row": rows,
            "expected": [f"first in row {numbers[near.entity[row]]}" for row in rows],
            "confidence": near.confidence[rows],
        },
        schema={"row": pl.Int64, "expected": pl.String, "confidence": pl.Float64},
    )
    return findings_of(
        cells, column="", rule=RULE, premise="the rows mean one entity", detector_version=VERSION
    )


def duplicate_records(
    original: pa.Table,
    rows: Rows,
    first: Rows,
    confidence: NDArray[np.float64],
    source: str,
    now: datetime,
) -> pa.Table:
    """Return the quarantine records of rows set aside.

    Args:
        original: The table as it came.
        rows: int64 [set aside] places in it.
        first: int64 [set aside] number in the source of the row kept for each.
        confidence: float64 [set aside] that both are one entity.
        source: Name of the file.
        now: The present.
    """
    rule = Rule(RULE, "an entity that occurs once", severity="warning", detector_version=VERSION)
    expected = [f"first in row {row}" for row in first]
    table = quarantine_rows(original, rows, rule, source=source, expected=expected, time=now)
    at = table.schema.get_field_index("confidence")
    return table.set_column(at, table.schema.field(at), pa.array(confidence, pa.float64()))


def fills(frame: pl.DataFrame, near: Duplicates) -> pl.DataFrame:
    """Return findings that fill missing cells of first rows from their entity's other rows.

    Only where all rows of the entity that hold anything hold the same.
    """
    entity = pl.Series("_entity", near.entity)
    several = entity.is_in(entity.filter(pl.Series(near.merged)).unique().implode())
    parts = []
    for name in frame.columns:
        held = (
            pl.DataFrame({"row": entity, "text": frame[name]})
            .filter(several)
            .drop_nulls("text")
            .unique()
        )
        one = held.filter(~pl.col("row").is_duplicated())
        empty = one.filter(frame[name].gather(one["row"]).is_null())
        parts.append(
            findings_of(
                empty.rename({"text": "suggestion"}), column=name, rule="duplicate-fill",
                expected="what its duplicates hold", premise="all of its duplicates agree",
                confidence=near.promise.precision, detector_version=VERSION,
            )
        )  # fmt: skip
    return joined(parts)
