"""Parsed columns as the contract judges them: values, what could not be read, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.contract.typed import ReadColumn
from tasks.fraud.dataset import AmountUnit
from tasks.fraud.ingest.parsing import Mask, Parsed, is_text, texts

YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond that an ISO text can name."""

WHOLE = 10.0**17
"""Larger amounts are cut to it: far beyond any allowed one, and still a whole number."""


@dataclass(frozen=True, slots=True)
class JudgedColumn:
    """A column for the contract, and what tells faults of one rule apart.

    Attributes:
        read: The column.
        faults: Name of a fault -> rows that have it, see ``contract.rule_names``.
    """

    read: ReadColumn
    faults: Mapping[str, Mask] = field(default_factory=dict)


def time_column(parsed: Parsed) -> JudgedColumn:
    """Return times, ``Datetime("ms")`` in UTC; what no calendar has could not be read either."""
    missing, unparsable = parsed.problems["missing"], parsed.problems["unparsable"]
    far = (parsed.values < YEAR_1) | (parsed.values > YEAR_9999)
    far &= ~(missing | unparsable)
    unread = far | unparsable
    values = _series(parsed.values, missing | unread).cast(pl.Datetime("ms"))
    return JudgedColumn(ReadColumn(values, unread), {"unparsable": unparsable})


def amount_column(parsed: Parsed, unit: AmountUnit) -> JudgedColumn:
    """Return amounts as the file gives them, whole ones where they are minor units."""
    problems = parsed.problems
    unread = problems["unparsable"] | problems["infinite"] | problems["fractional"]
    numbers = parsed.numbers
    if unit == "minor" and numbers.dtype == np.float64:
        # Half a cent below zero stays below zero.
        whole = np.clip(np.floor(np.where(unread, 0.0, numbers)), -WHOLE, WHOLE)
        numbers = whole.astype(np.int64)
    elif unit == "minor" and problems["overflow"].any():
        numbers = np.clip(numbers, -int(WHOLE), int(WHOLE))
    values = _series(numbers, problems["missing"] | unread)
    return JudgedColumn(ReadColumn(values, unread), problems)


def label_column(parsed: Parsed) -> JudgedColumn:
    """Return labels as the whole numbers that stand in the file."""
    unread = parsed.problems["unparsable"]
    return JudgedColumn(
        ReadColumn(_series(parsed.numbers, parsed.problems["missing"] | unread), unread)
    )


def coded_column(codes: NDArray[np.int32], ids: list[str]) -> JudgedColumn:
    """Return ids or categories by their codes (-1: missing)."""

    def spelled() -> pl.Series:
        return pl.Series(ids, dtype=pl.String).gather(values)

    values = _series(codes, codes < 0)
    return JudgedColumn(ReadColumn(values, texts=spelled))


def number_column(parsed: Parsed) -> JudgedColumn:
    """Return an extra column of numbers."""
    values, missing = parsed.values, parsed.problems["missing"]
    unread = parsed.problems["invalid"]
    if values.dtype == np.float64:
        unread = unread | ~np.isfinite(values)
    return JudgedColumn(ReadColumn(_series(values, missing | unread), unread))


def id_column(
    keys: NDArray[np.int64], array: pa.Array, missing: Mask, invalid: Mask
) -> JudgedColumn:
    """Return event ids by their 64-bit keys."""

    def spelled() -> pl.Series:
        return texts(array) if is_text(array) else values.cast(pl.String)

    values = _series(keys, missing | invalid)
    return JudgedColumn(ReadColumn(values, invalid, spelled))


def plain_column(array: pa.Array) -> JudgedColumn:
    """Return a column of which the config says nothing."""
    if is_text(array):
        return JudgedColumn(ReadColumn(texts(array)))
    return JudgedColumn(ReadColumn(pl.Series(pl.from_arrow(array))))


def _series(values: NDArray[Any], missing: Mask) -> pl.Series:
    """Return values with null where they are missing."""
    series = pl.Series(values)
    return series.set(pl.Series(missing), None) if missing.any() else series
