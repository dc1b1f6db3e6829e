"""Slices of a table: values of a column, bands of numbers, and where two columns meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.detect.numbers import numbers_of
from tasks.cleaning.repair.votes import encoded
from tasks.cleaning.slices.intervals import Floats, Sums

Codes = NDArray[np.int64]
NOWHERE = -1
MOST_VALUES = 200  # of a named column
FOUND_VALUES = 20  # of a column that nobody named
BANDS = 4
NUMBERS_FROM = 20
"""Columns of so many different numbers are cut into bands."""
MOST_PAIRS = 500


class SliceError(ValueError):
    """Slices that cannot be made; says which column and how to mend it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows of a slice have in common in one column.

    Attributes:
        column: The column.
        kind: ``value``, ``missing``, or ``band`` of numbers.
        value: The text.
        low: Least number of a band.
        high: Number below which the band ends.
    """

    column: str
    kind: Literal["value", "missing", "band"]
    value: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def name(self) -> str:
        """For people: ``town = York``, ``age 18 to under 30``."""
        if self.kind == "value":
            return f"{self.column} = {self.value}"
        if self.kind == "missing":
            return f"{self.column} is missing"
        if math.isinf(self.low):
            return f"{self.column} under {self.high:g}"
        if math.isinf(self.high):
            return f"{self.column} from {self.low:g}"
        return f"{self.column} {self.low:g} to under {self.high:g}"

    @property
    def holds(self) -> pl.Expr:
        """Expression over a frame of texts: whether a row fulfils it, never null."""
        text = pl.col(self.column)
        if self.kind == "missing":
            return text.is_null()
        if self.kind == "value":
            return (text == self.value).fill_null(value=False)
        number = text.str.strip_chars().cast(pl.Float64, strict=False)
        return ((number >= self.low) & (number < self.high)).fill_null(value=False)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A column cut into slices.

    Attributes:
        column: The column.
        codes: int64 [rows] slice of each row, -1 for none (values beyond the most common).
        conditions: Of every slice.
    """

    column: str
    codes: Codes
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of a table, first those of single columns, then of pairs of columns.

    Attributes:
        groupings: Of every column.
        pairs: Which two groupings meet.
        rows: Rows of the table.
    """

    groupings: tuple[Grouping, ...]
    pairs: tuple[tuple[int, int], ...]
    rows: int

    def sums(self, scores: Floats) -> Sums:
        """Add up scores.

        Args:
            scores: float64 [rows]; NaN where a row has none.

        Returns:
            Sums [slices] in the order of :meth:`members`, the slices of pairs after the others.
        """
        there = ~np.isnan(scores)
        values = np.where(there, scores, 0.0)
        parts = []
        for codes, size in self._coded():
            at = np.where(there, codes, NOWHERE) + 1
            parts.append(
                [
                    np.bincount(at, weights, size + 1)[1:].astype(np.float64)
                    for weights in (None, values, values * values)
                ]
            )
        n, total, squares = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Sums(n, total, squares)

    def members(self) -> list[tuple[Condition, ...]]:
        """Return the conditions of every slice."""
        singles = [(one,) for grouping in self.groupings for one in grouping.conditions]
        meet = [
            (a, b)
            for i, j in self.pairs
            for a in self.groupings[i].conditions
            for b in self.groupings[j].conditions
        ]
        return [*singles, *meet]

    def parents(self) -> NDArray[np.int64]:
        """Return the two slices that each one is part of, -1 for none [slices, 2]."""
        sizes = [len(grouping.conditions) for grouping in self.groupings]
        first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        parts = [np.full((first[-1], 2), -1, np.int64)]
        for i, j in self.pairs:
            a, b = np.meshgrid(np.arange(sizes[i]), np.arange(sizes[j]), indexing="ij")
            parts.append(np.stack([first[i] + a.ravel(), first[j] + b.ravel()], axis=1))
        return np.concatenate(parts)

    def _coded(self) -> list[tuple[Codes, int]]:
        coded = [(one.codes, len(one.conditions)) for one in self.groupings]
        for i, j in self.pairs:
            (a, n), (b, m) = coded[i], coded[j]
            both = np.where((a == NOWHERE) | (b == NOWHERE), NOWHERE, a * m + b)
            coded.append((both, n * m))
        return coded


def slices_of(
    frame: pl.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    pairs: bool = False,
    bands: int = BANDS,
) -> Slices:
    """Cut a table into slices.

    Args:
        frame: Texts.
        columns: Columns to cut by; if None, every column of few values, and every one of numbers.
        pairs: Whether slices where two columns meet are made, too; where no columns are named and
            too many would meet, there are none.
        bands: Bands of equal numbers of rows that a column of many numbers is cut into.

    Raises:
        SliceError: For a column that is not there or has too many values, for no column at all,
            and for too many pairs of named columns.
    """
    unknown = [name for name in columns or () if name not in frame.columns]
    if unknown:
        raise SliceError(f"no column {unknown[0]!r}; there are {', '.join(frame.columns)}")
    if columns is None:
        found = (_grouping(frame[name], bands, FOUND_VALUES) for name in frame.columns)
        groupings = [one for one in found if one is not None]
    else:
        groupings = [_named(frame[name], bands) for name in dict.fromkeys(columns)]
    if not groupings:
        raise SliceError("no column makes groups (2 to 20 values, or numbers); name some")
    count = len(groupings) * (len(groupings) - 1) // 2
    if pairs and count > MOST_PAIRS:
        if columns is None:
            return Slices(tuple(groupings), (), frame.height)
        raise SliceError(
            f"{len(groupings)} columns make {count:,} pairs, at most {MOST_PAIRS} are looked at; "
            "name fewer columns"
        )
    meet = tuple(combinations(range(len(groupings)), 2)) if pairs else ()
    return Slices(tuple(groupings), meet, frame.height)


def _named(column: pl.Series, bands: int) -> Grouping:
    made = _grouping(column, bands, MOST_VALUES)
    if made is None:
        raise SliceError(
            f"column {column.name!r} has {column.n_unique():,} different texts; slices are made of "
            f"2 to {MOST_VALUES} values, or of numbers"
        )
    return made


def _grouping(column: pl.Series, bands: int, most: int) -> Grouping | None:
    """Return a column's slices, None where it makes none."""
    codes, texts = encoded(column)
    codes = np.asarray(codes, np.int64)
    missing = codes < 0
    if len(texts) > NUMBERS_FROM and (numbers := numbers_of(column)) is not None:
        inner = np.unique(np.quantile(numbers.values, np.arange(1, bands) / bands))
        inner = inner[inner > numbers.values.min()]
        edges = [-math.inf, *inner.tolist(), math.inf]
        conditions = [Condition(column.name, "band", low=a, high=b) for a, b in pairwise(edges)]
        # What is no number among numbers is in no band.
        codes = np.full(len(column), NOWHERE, np.int64)
        codes[numbers.rows] = np.searchsorted(inner, numbers.values, side="right")
    elif not texts or len(texts) > most:
        return None
    else:
        conditions = [Condition(column.name, "value", text) for text in texts]
    if missing.any():
        codes = np.where(missing, len(conditions), codes)
        conditions.append(Condition(column.name, "missing"))
    if len(conditions) < 2:
        return None
    return Grouping(column.name, codes, tuple(conditions))
