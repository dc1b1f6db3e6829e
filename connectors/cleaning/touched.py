"""The rows that a decision touches, wherever they are: among the clean ones or in quarantine."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.cleaning.run import Run
from tasks.cleaning.clean import COPY
from tasks.cleaning.clean import VERSION as CLEAN
from tasks.cleaning.duplicates.linkage import VERSION as LINKAGE
from tasks.cleaning.repair.changes import apply, undo

Rows = NDArray[np.int64]


SET_ASIDE = (CLEAN, LINKAGE)
"""Detectors that set rows aside which had been read well."""
KEPT = re.compile(r"(?:equal to|first in) row (-?\d+)$")
"""Where the record of a duplicate says which row was kept."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Clean rows, and behind them those rows in quarantine that a decision touches.

    Attributes:
        frame: Their texts, repaired.
        numbers: int64 [rows] number of each in the source.
        touched: int64 positions of the rows that the decision touches.
        aside: int64 numbers of those that were in quarantine.
    """

    frame: pl.DataFrame
    numbers: Rows
    touched: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    aside: Rows = field(default_factory=lambda: np.empty(0, np.int64))

    def placed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return what a frame says of these rows, numbered by their positions."""
        at = pl.DataFrame({"row": self.numbers, "_at": np.arange(len(self.numbers))})
        here = frame.join(at, on="row", how="inner", maintain_order="left")
        return here.with_columns(pl.col("_at").alias("row")).drop("_at")


def touched_rows(run: Run, rows: pl.Series) -> Touched:
    """Return the clean rows of a run, and those of the given rows that lie in quarantine.

    A row that was set aside as a duplicate is touched with the row that was kept for it.

    Args:
        run: The run.
        rows: Numbers of the rows that a decision touches, in the source.
    """
    wanted = pl.Series("row", sorted(_with_duplicates(run, set(rows))), pl.Int64)
    theirs = records_of(run.quarantine, wanted.to_list())
    back, known, _ = payload_rows(theirs, run.frame.columns)
    last = Touched(back, known).placed(run.changes).sort("order")
    repaired = apply(back, last.unique(["row", "column"], keep="last", maintain_order=True))
    numbers = np.concatenate([run.rows.to_numpy(), known])
    touched = np.flatnonzero(np.isin(numbers, wanted.to_numpy()))
    return Touched(pl.concat([run.frame, repaired]), numbers, touched, known)


def still_merged(run: Run, rows: Rows, clean: Rows) -> pa.Table:
    """Return the records of near-duplicates among some rows whose kept row is clean.

    Args:
        run: The run, whose quarantine says what was found.
        rows: int64 numbers of rows that break nothing.
        clean: int64 numbers of the rows that are clean.
    """
    records = records_of(run.quarantine, rows.tolist())
    records = records.filter(pc.equal(records["detector_version"], LINKAGE))
    kept = _kept(records)
    there = np.isin(np.array(list(kept.values()), np.int64), clean)
    return records_of(records, [row for row, stays in zip(kept, there, strict=True) if stays])


def _with_duplicates(run: Run, rows: set[int]) -> set[int]:
    """Return rows with the duplicates that were set aside for them, and with their duplicates.

    Also a row in quarantine that another one equals: without it nothing would tell that.
    """
    kept = _kept(run.quarantine)
    found, before = set(rows), -1
    while len(found) > before:
        before = len(found)
        found |= {row for row, first in kept.items() if first in found}
        found |= {first for row, first in kept.items() if row in found and first in kept}
    return found


def _kept(quarantine: pa.Table) -> dict[int, int]:
    """Return the number of the row that was kept for each duplicate, by its own number."""
    mine = quarantine.filter(pc.equal(quarantine["rule"], COPY.name))
    said = zip(mine["row"].to_pylist(), mine["expected"].to_pylist(), strict=True)
    return {row: int(named[1]) for row, text in said if (named := KEPT.search(text))}


def as_it_came(run: Run) -> pl.DataFrame:
    """Return a run's clean rows as they came: every change undone.

    Raises:
        ValueError: When the clean rows were altered since.
    """
    return undo(run.frame, Touched(run.frame, run.rows.to_numpy()).placed(run.changes))[0]


def rows_as_they_came(run: Run) -> tuple[pl.DataFrame, Rows, pa.Table]:
    """Return a run's rows before any change, quarantined ones with them, in order of the source.

    Returns:
        The rows, the number of each in the source, and the records of what was no row.

    Raises:
        ValueError: When the clean rows were altered since.
    """
    original = as_it_came(run)
    back, known, unread = payload_rows(run.quarantine, original.columns)
    numbers = np.concatenate([run.rows.to_numpy(), known])
    order = np.argsort(numbers, kind="stable")
    return pl.concat([original, back])[order.tolist()], numbers[order], unread


def payload_rows(quarantine: pa.Table, columns: list[str]) -> tuple[pl.DataFrame, Rows, pa.Table]:
    """Return the rows that were set aside by a contract, their numbers, and all other records."""
    rows, numbers, unread = [], [], []
    for i, record in enumerate(quarantine.to_pylist()):
        # What the reader refused was no row, even where its bytes can be read as one.
        by_contract = record["detector_version"].startswith(SET_ASIDE)
        row = json.loads(record["payload"]) if by_contract else {}
        if by_contract and list(row) == columns:
            rows.append(list(row.values()))
            numbers.append(record["row"])
        else:
            unread.append(i)
    read = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return read, np.array(numbers, np.int64), quarantine.take(pa.array(unread, pa.int64()))


def records_of(records: pa.Table, rows: Collection[int]) -> pa.Table:
    """Return the quarantine records of some rows."""
    return records.filter(pc.is_in(records["row"], pa.array(rows, pa.int64())))
