"""The account of every changed cell, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

CHANGES: Mapping[str, Any] = {
    "order": pl.Int64,  # position among all changes of the run, from 0
    "row": pl.Int64,  # number of the row in its source, from 0
    "column": pl.String,
    "before": pl.String,  # null: missing
    "after": pl.String,  # null: missing
    "rule": pl.String,
    "premise": pl.String,
    "confidence": pl.Float64,
    "detector_version": pl.String,
    "pass": pl.Int64,  # round of the repair, from 1
}
"""Polars schema of the changes of a run."""


def no_changes() -> pl.DataFrame:
    """Return a frame of ``CHANGES`` without rows."""
    return pl.DataFrame(schema=dict(CHANGES))


def as_changes(findings: pl.DataFrame, *, first: int, turn: int) -> pl.DataFrame:
    """Return findings that are carried out as changes, numbered from ``first``."""
    return (
        findings.rename({"observed": "before", "suggestion": "after"})
        .with_row_index("order", offset=first)
        .with_columns(pl.lit(turn).alias("pass"))
        .select(pl.col(name).cast(kind) for name, kind in CHANGES.items())
    )


def extended(changes: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    """Return changes and, after the last round, findings that are carried out besides."""
    last = changes["order"].max()
    first = last + 1 if isinstance(last, int) else 0
    return changes.vstack(as_changes(findings, first=first, turn=0))


def apply(frame: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """Carry out changes, of which there is at most one for each cell.

    Args:
        frame: Texts, its rows numbered from 0.
        changes: Columns ``row``, ``column`` and ``after``.
    """
    columns = []
    for (name,), mine in changes.group_by("column", maintain_order=True):
        new = frame[str(name)].cast(pl.String).clone()
        columns.append(new.scatter(mine["row"].to_list(), mine["after"].to_list()))
    return frame.with_columns(columns)


def held(frame: pl.DataFrame, cells: pl.DataFrame) -> pl.Series:
    """Return what cells hold, in the order of ``cells``.

    Args:
        frame: Texts, its rows numbered from 0.
        cells: Columns ``row`` and ``column``.
    """
    numbered = cells.select("row", "column").with_row_index("_at")
    parts = [
        mine.select("_at", frame[str(name)].cast(pl.String).gather(mine["row"]).alias("held"))
        for (name,), mine in numbered.group_by("column", maintain_order=True)
    ]
    empty = pl.DataFrame(schema={"_at": numbered.schema["_at"], "held": pl.String})
    return pl.concat([empty, *parts]).sort("_at")["held"]


def undo(
    frame: pl.DataFrame, changes: pl.DataFrame, chosen: pl.Expr | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Put cells back to what they were.

    A cell goes back to before the earliest of its chosen changes, and loses the later ones with it.

    Args:
        frame: The repaired texts.
        changes: All changes of the run.
        chosen: Which of them to take back; all if None.

    Returns:
        The frame and the changes that still stand.

    Raises:
        ValueError: When a cell does not hold what its last change left there: the table was
            altered since, or is another one.
    """
    last = changes.sort("order").group_by("row", "column", maintain_order=True).last()
    now = held(frame, last)
    altered = last.with_columns(now).filter(pl.col("held").ne_missing(pl.col("after")))
    if not altered.is_empty():
        one = altered.row(0, named=True)
        raise ValueError(
            f"row {one['row']}, column {one['column']!r} holds {one['held']!r} but was left as "
            f"{one['after']!r}; undo works on the table that the run wrote"
        )
    picked = changes if chosen is None else changes.filter(chosen)
    first = picked.sort("order").group_by("row", "column", maintain_order=True).first()
    restored = apply(frame, first.select("row", "column", pl.col("before").alias("after")))
    since = changes.join(
        first.select("row", "column", pl.col("order").alias("_from")),
        on=["row", "column"],
        how="left",
    )
    kept = since.filter(pl.col("_from").is_null() | (pl.col("order") < pl.col("_from")))
    return restored, kept.drop("_from")
