"""A column of texts read as what it holds: numbers, dates, moments, or texts.

What a column holds is inferred (``contract/infer.py``) or told by a contract; spellings are undone
by the same normalisers that repair uses, so that ``5 kg`` is 5 here and there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.infer import InferConfig, infer_column
from tasks.cleaning.contract.model import ColumnContract, Kind
from tasks.cleaning.contract.values import BOOLEAN, DATETIME, Both, instant
from tasks.cleaning.repair.normalise import VALUE, normalisers

Floats = NDArray[np.float64]
LOOK = 20_000
"""Rows that a column's kind is inferred from, drawn evenly."""
DAY = 86_400.0
READ = InferConfig(uniform_share=2.0)
"""A contract leaves alone what is written one way ("5 kg" everywhere); here it is read all the
same: no share reaches the limit."""


@dataclass(frozen=True, slots=True)
class Values:
    """A column as it was read.

    Attributes:
        name: The column.
        line: What it was read as; inferred or declared.
        rows: Rows of the column.
        text: Filled texts without blanks around and codes for missing values [filled].
        places: Row of each readable number, date or moment [read].
        numbers: Numbers, days since 1970 (dates and moments) [read]; empty for texts.
    """

    name: str
    line: ColumnContract
    rows: int
    text: pl.Series
    places: NDArray[np.int64]
    numbers: Floats

    @property
    def kind(self) -> Kind:
        """Type of the values."""
        return self.line.kind

    @property
    def is_number(self) -> bool:
        """Whether the values are amounts."""
        return self.line.is_number

    @property
    def is_time(self) -> bool:
        """Whether the values are dates or moments."""
        return self.kind in {"date", "datetime"}

    @property
    def filled(self) -> int:
        """Cells that hold something."""
        return self.text.len()

    @property
    def missing(self) -> int:
        """Cells that are empty or hold a code for a missing value."""
        return self.rows - self.filled

    @property
    def unreadable(self) -> int:
        """Filled cells that are no number, date or moment where the column holds such."""
        return self.filled - len(self.numbers) if self.is_number or self.is_time else 0


def line_of(column: pl.Series) -> ColumnContract:
    """Return what a column of texts holds, moments and booleans included."""
    step = -(-column.len() // LOOK) or 1
    seen = column.gather_every(step) if step > 1 else column
    found = infer_column(seen, READ)
    if found.kind != "text":
        return found
    known = seen.drop_nulls()
    known = known.filter((known != "") & ~known.is_in(list(found.missing)))
    if known.is_empty():
        return found
    if known.str.contains(DATETIME).sum() >= READ.kind_share * known.len():
        return replace(found, kind="datetime", domain=(), confidence={})
    words = {word.lower() for word in found.domain}
    if len(words) == 2 and pl.Series(sorted(words)).str.contains(BOOLEAN).all():
        return replace(found, kind="boolean")
    return found


def read_values(column: pl.Series, line: ColumnContract | None = None) -> Values:
    """Read a column.

    Args:
        column: Texts.
        line: What it holds; inferred from it if None.
    """
    line = line or line_of(column)
    steps = pl.LazyFrame({VALUE: column.cast(pl.String)})
    for step in normalisers(VALUE, replace(line, domain=(), confidence={})):
        steps = steps.with_columns(step.expression.alias(VALUE))
    filled = pl.col(VALUE).is_not_null() & (pl.col(VALUE) != "")
    frame = (
        steps.with_row_index("row")
        .filter(filled)
        .with_columns(_number(line).alias("number"))
        .collect()
    )
    read = frame.select("row", "number").filter(pl.col("number").is_finite())
    return Values(
        column.name,
        line,
        column.len(),
        frame[VALUE].alias(column.name),
        read["row"].to_numpy().astype(np.int64),
        read["number"].to_numpy(),
    )


def read_table(
    frame: pl.DataFrame, lines: Sequence[tuple[str, ColumnContract]] | None = None
) -> dict[str, Values]:
    """Read every column of a frame of texts; those without a line are inferred."""
    known = dict(lines or ())
    return {name: read_values(frame[name], known.get(name)) for name in frame.columns}


def _number(line: ColumnContract) -> pl.Expr:
    text = pl.col(VALUE)
    if line.is_number:
        return text.cast(pl.Float64, strict=False)
    if line.kind == "date":
        days = text.str.strptime(pl.Date, "%Y-%m-%d", strict=False)
        return days.dt.epoch("d").cast(pl.Float64)
    if line.kind == "datetime":
        return instant(Both(text, "")).expr.dt.epoch("us").cast(pl.Float64) / 1e6 / DAY
    return pl.lit(None, pl.Float64)
