"""Keep the first row of every entity and set the others aside as ``duplicate-of``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.duplicates.exact import first_equal_rows
from tasks.cleaning.duplicates.linkage import VERSION, Duplicates, Linkage, find_duplicates
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows

EXACT = Rule(
    "duplicate-of", "a row that occurs once", severity="warning", detector_version="exact/1"
)
NEAR = replace(EXACT, expected="an entity that occurs once", detector_version=VERSION)


@dataclass(frozen=True, slots=True)
class Merged:
    """A table without duplicates.

    Attributes:
        kept: First row of every entity, in the order of the table.
        quarantine: The others, in the same order, as ``QUARANTINE_SCHEMA``; ``expected`` names the
            row that was kept, ``confidence`` how sure the model is of it.
        entity: int64 [rows] number of the row that was kept for each.
        near: What the model found among the rows that are not equal; null without one.
    """

    kept: pl.DataFrame
    quarantine: pa.Table
    entity: NDArray[np.int64]
    near: Duplicates | None


def merge_duplicates(
    frame: pl.DataFrame, linkage: Linkage | None = None, *, source: str, first_row: int = 0
) -> Merged:
    """Set aside rows that are equal to an earlier one, then those that mean the same entity.

    Args:
        frame: The table as it was read.
        linkage: How rows are compared; null: only equal rows are duplicates.
        source: Where the table came from.
        first_row: Number of the table's first row in its source.

    Raises:
        ValueError: If a compared column is missing.
    """
    if frame.height == 0:
        return Merged(frame, empty_quarantine(), np.empty(0, np.int64), None)
    exact = first_equal_rows(frame)
    entity, confidence, near = exact.copy(), np.ones(frame.height), None
    if linkage is not None:
        distinct = np.flatnonzero(exact == np.arange(frame.height))
        near = find_duplicates(frame[distinct], linkage)
        entity[distinct] = distinct[near.entity]
        confidence[distinct] = near.confidence
        entity = entity[exact]  # a copy goes where its first row went
    aside = entity != np.arange(frame.height)
    by_model = aside & (exact == np.arange(frame.height))
    parts = [
        _records(frame, rows, rule, entity, confidence, source, first_row)
        for rule, rows in (
            (EXACT, np.flatnonzero(aside & ~by_model)),
            (NEAR, np.flatnonzero(by_model)),
        )
    ]
    quarantine = pa.concat_tables(parts).sort_by("row")
    kept = frame.filter(pl.Series(~aside))
    if kept.height + quarantine.num_rows != frame.height:  # pragma: no cover - a guard
        raise AssertionError("rows in are not rows kept and rows set aside")
    return Merged(kept, quarantine, entity, near)


def _records(
    frame: pl.DataFrame,
    rows: NDArray[np.int64],
    rule: Rule,
    entity: NDArray[np.int64],
    confidence: NDArray[np.float64],
    source: str,
    first_row: int,
) -> pa.Table:
    expected = [f"first in row {entity[row] + first_row}" for row in rows]
    table = quarantine_rows(
        frame[rows].to_arrow(), np.arange(len(rows)), rule,
        source=source, expected=expected,
    )  # fmt: skip
    for name, values in (("row", rows + first_row), ("confidence", confidence[rows])):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values))
    return table
