"""A file of labelled rows: asked for by a run, corrected by a person, used by the next run.

A CSV with the number of each row in its source, then the table's columns. `extend` writes rows as
they came; whoever knows better puts the right values there, and an empty cell says that nothing
belongs there.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.files import atomic_path
from tasks.cleaning.active.learner import LabelledRows

MAX_LABELS = 10_000


class LabelFileError(ValueError):
    """Labels that cannot be used; says what, where and how to mend it."""


def number_column(columns: Sequence[str]) -> str:
    """Return the name of the column of row numbers: ``row``, or ``row_`` where that is taken."""
    name = "row"
    while name in columns:
        name += "_"
    return name


def read_labels(path: Path) -> pl.DataFrame:
    """Read a file of labelled rows as texts, empty ones as missing.

    Raises:
        LabelFileError: When it cannot be read, or holds too many rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            names = next(csv.reader(handle), [])  # Polars leaves quotes doubled in names
        frame = pl.read_csv(path, infer_schema=False, new_columns=names)
    except (OSError, ValueError, csv.Error, pl.exceptions.PolarsError) as error:
        raise LabelFileError(f"{path} cannot be read as labelled rows: {error}") from None
    if frame.height > MAX_LABELS:
        raise LabelFileError(f"{path} has {frame.height:,} rows; at most {MAX_LABELS:,} are used")
    return frame.with_columns(pl.when(pl.all() != "").then(pl.all()))


def labelled_rows(
    labels: pl.DataFrame, columns: Sequence[str], numbers: NDArray[np.int64]
) -> LabelledRows:
    """Return labels by the places of their rows in a table.

    Args:
        labels: What :func:`read_labels` returned.
        columns: The table's.
        numbers: int64 [rows] number of each of its rows in the source.

    Raises:
        LabelFileError: When columns are missing, or a row is not in the table or told twice.
    """
    key = number_column(columns)
    missing = [name for name in (key, *columns) if name not in labels.columns]
    if missing:
        raise LabelFileError(
            f"labelled rows lack the columns {', '.join(missing)}; penstock clean label writes "
            "a file with all of them"
        )
    rows = labels[key].cast(pl.Int64, strict=False)
    place = {number: i for i, number in enumerate(numbers.tolist())}
    unknown = [text for text, row in zip(labels[key], rows, strict=True) if row not in place]
    if unknown:
        raise LabelFileError(
            f"labelled row {unknown[0]!r} is not in the table; column {key!r} counts from 0, "
            "without the header"
        )
    if rows.n_unique() < len(rows):
        twice = rows.filter(rows.is_duplicated())[0]
        raise LabelFileError(f"row {twice} is labelled twice; keep one of the two")
    at = np.array([place[row] for row in rows.to_list()], np.int64)
    return LabelledRows(at, labels.select(columns))


def extend(path: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Add rows to a file of labelled rows, which is made if there is none.

    Raises:
        LabelFileError: When the file is of another table.
    """
    if path.exists():
        before = read_labels(path)
        if before.columns != rows.columns:
            raise LabelFileError(
                f"{path} has other columns than the table: {', '.join(before.columns)}; choose "
                "another file"
            )
        rows = pl.concat([before, rows])
    with atomic_path(path) as temporary:
        rows.write_csv(temporary)
    return rows
