"""A linkage for a table that nobody described: kinds of comparison read off the values."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tasks.cleaning.duplicates.comparison import Comparison, Kind, cleaned

MOSTLY = 0.9
FEW_VALUES = 20
WORD = 12.0  # mean length up to which letters are taken for a name


def infer_comparisons(frame: pl.DataFrame, columns: Sequence[str] = ()) -> tuple[Comparison, ...]:
    """Return a comparison for every column that can tell entities apart.

    Left out are columns with one value and columns whose every value is another: they number rows.

    Args:
        frame: The table.
        columns: Columns to look at; all if left out.
    """
    texts = cleaned(frame, list(columns) or frame.columns)
    found = []
    for name in texts.columns:
        values = texts[name].drop_nulls()
        distinct = values.n_unique()
        if distinct > 1 and not (distinct == frame.height > FEW_VALUES):
            found.append(Comparison(name, _kind(values, distinct)))
    return tuple(found)


def _kind(values: pl.Series, distinct: int) -> Kind:
    if _share(values, r"^(1[0-9]|20)\d{2}[-/.]?\d{2}[-/.]?\d{2}(\D.*)?$") >= MOSTLY:
        return "date"
    if _share(values, r"^[+-]?\d+\.\d+$") >= MOSTLY:
        return "number"
    if distinct <= FEW_VALUES:
        return "exact"
    letters = _share(values, r"^[\p{L}' .-]+$") >= MOSTLY
    length = values.str.len_chars().mean()
    return "name" if letters and isinstance(length, float) and length <= WORD else "text"


def _share(values: pl.Series, pattern: str) -> float:
    return float(values.str.contains(pattern).sum()) / max(len(values), 1)
