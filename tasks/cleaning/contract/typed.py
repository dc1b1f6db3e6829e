"""A contract's verdicts over columns that a reader has given types, without making texts of them.

They are those of ``row_rules`` over the same columns cast to texts, at a fraction of the cost: a
kind is met by type, bounds compare whole numbers, floats and instants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.contract.rules import RowRule

Mask = NDArray[np.bool_]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column as a reader understood it.

    Attributes:
        values: One value per row, null where there is none or it could not be read.
        unread: Filled cells that could not be read as the column's kind, bool [rows]; None: none.
        texts: The values as texts, made when a rule looks at them. With it ``values`` only tell
            which are alike and which are missing, as codes do; None: they are the values.
    """

    values: pl.Series
    unread: Mask | None = None
    texts: Callable[[], pl.Series] | None = None

    def as_texts(self) -> pl.Series:
        """Return the values as texts."""
        return self.values.cast(pl.String) if self.texts is None else self.texts()


def typed_verdict(rule: RowRule, contract: Contract, columns: Mapping[str, ReadColumn]) -> Mask:
    """Return the rows that break a rule, bool [rows].

    Args:
        rule: One of ``row_rules(contract)``.
        contract: The contract.
        columns: The contract's columns.
    """
    if rule.key:
        return repeats(columns[name] for name in rule.key) >= 0
    if not rule.column:
        return _over_texts(rule, columns)
    column, said = columns[rule.column], contract.columns[rule.column]
    line = rule.name.split(":", 1)[0]
    broken: pl.Series | None = None
    if line == "nullable":
        missing = column.values.is_null().to_numpy()
        return missing if column.unread is None else missing & ~column.unread
    if line == "kind":
        broken = _unlike(said.kind, column)
    elif line in {"minimum", "maximum"}:
        broken = _beyond(line, said, column)
    elif line == "domain":
        broken = _outside(said.domain, column)
    if broken is None:
        verdict = _over_texts(rule, columns)
    else:
        verdict = broken.fill_null(value=False).to_numpy()
    return verdict if line != "kind" or column.unread is None else verdict | column.unread


def repeats(columns: Iterable[ReadColumn], among: Mask | None = None) -> NDArray[np.int64]:
    """Return for every row the first one with the same values, -1 where it is the first itself.

    A row that lacks a value repeats none.

    Args:
        columns: Columns that together tell rows apart.
        among: Rows that count, bool [rows]; others repeat none and none repeats them.
    """
    parts = [_distinct(column).alias(f"{i}") for i, column in enumerate(columns)]
    frame = pl.DataFrame(parts)
    names, earlier = frame.columns, np.full(frame.height, -1, np.int64)
    rows = None if among is None or among.all() else np.flatnonzero(among)
    if rows is not None:
        frame = frame[rows]
    if any(_rising(frame[name]) for name in names):
        return earlier
    values = frame.to_series() if len(names) == 1 else frame.to_struct()
    if values.n_unique() == len(values):  # a sixth of the cost of finding the first ones
        return earlier
    first = values.is_first_distinct()
    at = np.arange(len(earlier)) if rows is None else rows
    frame = frame.with_columns(pl.Series("at", at))
    again = frame.filter(~first).drop_nulls()
    found = again.join(frame.filter(first), on=names, how="left", maintain_order="left")
    earlier[found["at"].to_numpy()] = found["at_right"].to_numpy()
    return earlier


def instant(text: str) -> int:
    """Return the microseconds from 1970 (UTC) to a bound on date-times; a day is its midnight."""
    moment = datetime.fromisoformat(text)
    return (
        (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    ) // timedelta.resolution


def _distinct(column: ReadColumn) -> pl.Series:
    """Return values of which two are equal only if their texts are."""
    exact = column.texts is not None or column.values.dtype.is_integer()
    return column.values if exact else column.as_texts()


def _rising(values: pl.Series) -> bool:
    """Tell whether each value is greater than the one before, as running numbers are."""
    if not values.dtype.is_integer() or values.has_nulls():
        return False
    numbers = values.to_numpy()
    return bool((numbers[1:] > numbers[:-1]).all())


def _over_texts(rule: RowRule, columns: Mapping[str, ReadColumn]) -> Mask:
    """Return a verdict over the texts of the columns that a rule names."""
    named = [name for name in rule.broken.meta.root_names() if name in columns]
    rows = len(next(iter(columns.values())).values)
    frame = pl.DataFrame([columns[name].as_texts().alias(name) for name in dict.fromkeys(named)])
    broken = frame.select(rule.broken).to_series().to_numpy()
    return np.broadcast_to(broken, rows)


def _unlike(kind: str, column: ReadColumn) -> pl.Series | None:
    """Return which values are not of a kind; None where only their texts can tell."""
    values, unlike = column.values, None
    if column.texts is not None:
        return None
    if kind == "integer" and values.dtype.is_integer():
        unlike = values.cast(pl.Int64, strict=False).is_null() & values.is_not_null()
    elif kind == "decimal" and values.dtype.is_float():
        unlike = ~values.is_finite()
    elif kind == "datetime" and _is_instant(values.dtype):
        # Years of other than four digits have no place in the ISO form.
        unlike = (values < datetime.min) | (values > datetime.max)  # noqa: DTZ901 - no zone
    elif (kind == "decimal" and values.dtype.is_integer()) or (
        kind == "boolean" and values.dtype == pl.Boolean
    ):
        unlike = pl.repeat(value=False, n=len(values), eager=True)
    return unlike


def _beyond(line: str, said: ColumnContract, column: ReadColumn) -> pl.Series | None:
    """Return which values lie beyond a bound; None where only their texts can tell."""
    values, unlike = column.values, _unlike(said.kind, column)
    bound = said.minimum if line == "minimum" else said.maximum
    # The text of a 32-bit float reads as another 64-bit one.
    if unlike is None or bound is None or values.dtype == pl.Float32:
        return None
    limit: float
    if isinstance(bound, str):
        parts = 1_000 if values.dtype == pl.Datetime("ms") else 1
        moment = instant(bound)
        limit = -(-moment // parts) if line == "minimum" else moment // parts
        values = values.to_physical()
    else:
        limit = math.ceil(bound) if line == "minimum" else math.floor(bound)
        if said.kind == "integer" and -(2**63) < limit < 2**63:
            values = values.cast(pl.Int64, strict=False)
        else:
            limit, values = float(bound), values.cast(pl.Float64)
    broken: pl.Series = values < limit if line == "minimum" else values > limit
    return broken & ~unlike if unlike.any() else broken


def _outside(domain: tuple[str, ...], column: ReadColumn) -> pl.Series | None:
    """Return which values are not of a domain; None where only their texts can tell."""
    values = column.values
    if column.texts is not None or not values.dtype.is_signed_integer():
        return None
    spelled = [int(text) for text in domain if text.removeprefix("-").isdecimal()]
    # 007 and -0 are texts that no number is written as.
    known = [number for number in spelled if str(number) in domain and -(2**63) <= number < 2**63]
    return ~values.cast(pl.Int64).is_in(known)


def _is_instant(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is None and kind.time_unit != "ns"
