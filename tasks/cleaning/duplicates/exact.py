"""Rows that are equal in every column, or in those named: the others point to the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray


def first_equal_rows(frame: pl.DataFrame, columns: Sequence[str] = ()) -> NDArray[np.int64]:
    """Return for every row the first row that is equal to it, which may be itself: int64 [rows].

    Rows are grouped by hash, and the groups by the values themselves: a collision of hashes joins
    nothing. Null equals null.

    Args:
        frame: Any columns that can be grouped.
        columns: Columns that count; all if left out.

    Raises:
        ValueError: If a column is missing or none is left.
    """
    names = list(columns) or frame.columns
    missing = [name for name in names if name not in frame.columns]
    if missing or not names:
        raise ValueError(f"no columns {missing} to compare: there are {frame.columns}")
    row = "row"
    while row in names:
        row += "_"
    first = frame.select(names).with_row_index(row).select(pl.col(row).min().over(names))
    return first[row].cast(pl.Int64).to_numpy()
