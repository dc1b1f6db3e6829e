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
    first = frame.select(pl.int_range(pl.len(), dtype=pl.Int64).min().over(names).alias("first"))
    return first["first"].to_numpy()
