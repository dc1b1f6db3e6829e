"""Checks before training: a table becomes sorted transactions, bad rows go to quarantine.

A row is quarantined once, under the first rule it breaks in the order of ``RULES``; duplicates are
looked for last, among rows that are otherwise good, and the first in the file stays. A row that
lacks any of its entity ids is quarantined: an entity called "missing" would join strangers.
Tolerated and counted: rows out of time order, unlabelled rows, missing extra columns' values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.check_report import (
    CheckReport,
    QuarantineLimitError,
    enforce_limit,
    summarise,
)
from tasks.fraud.ingest.identifiers import (
    EXACT_FLOAT,
    encode,
    event_keys,
    join_indexes,
    spell_keys,
)
from tasks.fraud.ingest.parsing import (
    MAX_AMOUNT,
    DataError,
    Mask,
    Parsed,
    is_text,
    parse_amounts,
    parse_labels,
    parse_numbers,
    parse_times,
    plain_array,
    texts,
)
from tasks.fraud.transactions import UNKNOWN, Transactions

__all__ = [
    "RULES",
    "CheckReport",
    "CheckedData",
    "DataError",
    "QuarantineLimitError",
    "check",
    "require_trainable",
]

VERSION = "fraud-checks/1"

_EXPECTED = {
    "missing-time": "a time",
    "unparsable-time": "a time as the config describes it",
    "impossible-time": "a time between 'earliest' and now",
    "missing-amount": "an amount",
    "unparsable-amount": "a number",
    "infinite-amount": "a finite number",
    "overflow-amount": f"at most {MAX_AMOUNT} minor units",
    "negative-amount": "zero or more",
    "fractional-amount": "whole minor units",
    "missing-entity": "an id",
    "missing-id": "an id",
    "invalid-id": "a whole number of 64 bits, or text",
    "invalid-label": "0, 1, true, false or null",
    "unparsable-label-time": "a time as the config describes it",
    "impossible-label-time": "a time between 'earliest' and now",
    "duplicate-of": "an id that occurs once",
}
RULES = {
    name: Rule(
        name,
        expected,
        severity="warning" if name == "duplicate-of" else "error",
        detector_version=VERSION,
    )
    for name, expected in _EXPECTED.items()
}
"""Every rule by name, in the order in which they are applied."""


@dataclass(frozen=True, slots=True)
class CheckedData:
    """Good rows, bad rows and the count of both."""

    transactions: Transactions
    quarantine: pa.Table
    report: CheckReport


def check(
    table: pa.Table, config: DatasetConfig, source: str, *, now: datetime | None = None
) -> CheckedData:
    """Turn a table into checked transactions.

    Args:
        table: The data as read from a file.
        config: What its columns mean.
        source: Name of the file for records and messages.
        now: The present; times later than ``config.max_future_days`` after it are impossible.

    Raises:
        DataError: When a column is absent or of the wrong type, or the table has no rows.
        QuarantineLimitError: When more than ``config.max_quarantine_share`` of the rows are bad,
            or all of them.
    """
    now = now or datetime.now(UTC)
    _require_columns(table, config, source)
    try:
        screen = _Screen(table, source, now)
        columns = _parse(table, config, screen, now)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    keep = np.flatnonzero(~screen.bad)
    transactions, unsorted = _assemble(columns, config, keep)
    quarantine = screen.quarantine()
    if len(transactions) + len(quarantine) != len(table):
        raise RuntimeError(
            f"{source}: {len(table)} rows in, but {len(transactions)} used and "
            f"{len(quarantine)} quarantined; please report this as a bug"
        )
    report = summarise(source, len(table), screen.by_rule, transactions, unsorted)
    enforce_limit(report, quarantine, config.max_quarantine_share)
    return CheckedData(transactions, quarantine, report)


def require_trainable(counts: Mapping[str, Any], source: str = "the data") -> None:
    """Raise ``DataError``, naming the source, unless both classes occur among the labels.

    Args:
        counts: A check report as a dictionary; ``labelled`` and ``frauds`` are read.
        source: Named in the message.
    """
    labelled, frauds = int(counts["labelled"]), int(counts["frauds"])
    if 0 < frauds < labelled:
        return
    if not labelled:
        raise DataError(
            f"{source}: no row is labelled: training needs known frauds and legitimate rows; "
            "name the label column as 'label' in the config"
        )
    only = "frauds" if frauds else "legitimate rows"
    raise DataError(
        f"{source}: all {labelled} labels are {only}: training needs both classes; "
        "check the 'label' column, or bring a longer history"
    )


@dataclass(slots=True)
class _Columns:
    """Parsed columns before bad rows are dropped."""

    key: NDArray[np.int64]
    names: NDArray[np.object_] | None  # ids where their column is text
    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    label: NDArray[np.int8]
    label_time: NDArray[np.int64]
    entities: dict[str, tuple[NDArray[np.int32], list[str]]]
    numeric: dict[str, NDArray[np.float64]]
    categorical: dict[str, tuple[NDArray[np.int32], list[str]]]


class _Screen:
    """Collects, for every row, the first rule it breaks."""

    def __init__(self, table: pa.Table, source: str, now: datetime) -> None:
        self.table, self.source, self.now = table, source, now
        self.bad = np.zeros(len(table), np.bool_)
        self.by_rule: dict[str, int] = {}
        self._parts: list[pa.Table] = []

    def refuse(
        self, rule: str, column: str, mask: Mask, first: NDArray[np.int64] | None = None
    ) -> None:
        """Set aside rows in ``mask``; ``first`` names the row each one repeats."""
        rows = np.flatnonzero(mask & ~self.bad)
        if not len(rows):
            return
        self.bad[rows] = True
        self.by_rule[rule] = self.by_rule.get(rule, 0) + len(rows)
        self._parts.append(
            quarantine_rows(
                self.table,
                rows,
                RULES[rule],
                source=self.source,
                column=column,
                expected=None if first is None else [f"first in row {i}" for i in first[rows]],
                time=self.now,
            )
        )

    def quarantine(self) -> pa.Table:
        """Return all records in the order of rows."""
        parts = pa.concat_tables(self._parts) if self._parts else empty_quarantine()
        return parts.sort_by("row")


def _require_columns(table: pa.Table, config: DatasetConfig, source: str) -> None:
    absent = [name for name in config.columns if name not in table.column_names]
    if absent:
        raise DataError(
            f"{source}: no column {', '.join(map(repr, absent))}; the file has "
            f"{', '.join(table.column_names)}: mend the dataset config '{config.name}'"
        )
    twice = [name for name in config.columns if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{source}: two columns are called {twice[0]!r}; rename one")
    if len(table) == 0:
        raise DataError(f"{source}: the table has a header but no rows; export it again")


def _parse(table: pa.Table, config: DatasetConfig, screen: _Screen, now: datetime) -> _Columns:
    def column(name: str) -> pa.Array:
        return plain_array(table.column(name))

    latest = round((now + timedelta(days=config.max_future_days)).timestamp() * 1000)
    time = _times(column(config.time), config, screen, config.time, "time", latest)
    amount = parse_amounts(
        column(config.amount), config.amount, config.amount_unit, config.decimals
    )
    for rule, mask in amount.problems.items():
        screen.refuse(f"{rule}-amount", config.amount, mask)
    entities = {}
    for entity in config.entities:
        array = _require_exact(column(entity.column), entity.column)
        codes, ids = encode(array)
        screen.refuse("missing-entity", entity.column, codes < 0)
        entities[entity.column] = (codes, ids)
    label = np.full(len(table), UNKNOWN, np.int8)
    if config.label:
        parsed = parse_labels(column(config.label), config.label)
        screen.refuse("invalid-label", config.label, parsed.problems["invalid"])
        label = parsed.values
    label_time = time.values + config.delay_ms
    if config.label_time:
        name = config.label_time
        known = _times(column(name), config, screen, name, "label-time", latest)
        there = ~known.problems["missing"]
        label_time = np.where(there, np.maximum(label_time, known.values), label_time)
    numeric = {name: _numeric(column(name), name) for name in config.numeric}
    categorical = {name: encode(_scalar(column(name), name)) for name in config.categorical}
    key, names = _keys(table, config, screen)  # last: of equal ids the first good row stays
    return _Columns(
        key, names, time.values, amount.values, label, label_time, entities, numeric, categorical
    )


def _times(
    array: pa.Array, config: DatasetConfig, screen: _Screen, name: str, what: str, latest: int
) -> Parsed:
    parsed = parse_times(array, name, config.time_unit, config.origin_ms)
    missing, unparsable = parsed.problems["missing"], parsed.problems["unparsable"]
    if what == "time":
        screen.refuse("missing-time", name, missing)
    screen.refuse(f"unparsable-{what}", name, unparsable)
    outside = (parsed.values < config.earliest_ms) | (parsed.values > latest)
    screen.refuse(f"impossible-{what}", name, outside & ~missing)
    return parsed


def _keys(
    table: pa.Table, config: DatasetConfig, screen: _Screen
) -> tuple[NDArray[np.int64], NDArray[np.object_] | None]:
    """Return the keys by which rows are sorted and told apart, and the ids where they are text."""
    if not config.event_id:
        return np.arange(len(table), dtype=np.int64), None
    name = config.event_id
    names = None
    array = plain_array(table.column(name))
    if is_text(array):
        text = texts(array)
        missing = text.is_null().to_numpy()
        invalid = np.zeros_like(missing)
        keys = event_keys(text.fill_null("0"))
        names = array.to_numpy(zero_copy_only=False)
    else:
        numbers = parse_numbers(_require_exact(array, name), name)
        missing, invalid = numbers.problems["missing"], numbers.problems["invalid"]
        keys = numbers.values
        if keys.dtype != np.int64:
            whole = np.isfinite(keys) & (keys == np.rint(keys))
            invalid = invalid | ~whole
            keys = np.where(whole, keys, 0).astype(np.int64)
    screen.refuse("missing-id", name, missing)
    screen.refuse("invalid-id", name, invalid)
    good = np.flatnonzero(~screen.bad)
    repeated = np.zeros(len(table), np.bool_)
    repeated[good] = ~pl.Series(keys[good]).is_first_distinct().to_numpy()
    if repeated.any():
        ids, first = np.unique(keys[good], return_index=True)
        at = np.minimum(np.searchsorted(ids, keys), len(ids) - 1)
        screen.refuse("duplicate-of", name, repeated, good[first[at]])
    return keys, names


def _numeric(array: pa.Array, name: str) -> NDArray[np.float64]:
    parsed = parse_numbers(array, name)
    values = parsed.values.astype(np.float64)
    absent = parsed.problems["missing"] | parsed.problems["invalid"] | ~np.isfinite(values)
    return np.where(absent, np.nan, values)


def _scalar(array: pa.Array, name: str) -> pa.Array:
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        raise DataError(
            f"column {name!r} has type {array.type}, not text, numbers or dates: convert the column"
        )
    return array


def _require_exact(array: pa.Array, name: str) -> pa.Array:
    """Refuse ids that lost digits when someone wrote them as floats."""
    if pa.types.is_floating(_scalar(array, name).type):
        numbers = parse_numbers(array, name).values
        if np.any(np.abs(numbers[np.isfinite(numbers)]) > EXACT_FLOAT):
            raise DataError(
                f"column {name!r} holds ids beyond 2^53 as floats, so neighbouring ids are already "
                "mixed up: export the column as text or integers"
            )
    return array


def _assemble(
    columns: _Columns, config: DatasetConfig, keep: NDArray[np.intp]
) -> tuple[Transactions, int]:
    """Drop bad rows, sort by (time, event id), build the shared indexes."""
    time = columns.time[keep]
    unsorted = 0
    if len(time):
        unsorted = int((time[1:] < np.maximum.accumulate(time)[:-1]).sum())
    rows = keep[np.lexsort((columns.key[keep], time))]
    entities: dict[str, NDArray[np.int32]] = {}
    index = {}
    for kind, names in config.kinds.items():
        parts = [(columns.entities[name][0][rows], columns.entities[name][1]) for name in names]
        codes, index[kind] = join_indexes(parts)
        entities.update(zip(names, codes, strict=True))
    categorical, categories = {}, {}
    for name, (codes_all, ids) in columns.categorical.items():
        (categorical[name],), categories[name] = join_indexes([(codes_all[rows], ids)])
    written = None if columns.names is None else columns.names[rows]
    if written is not None and spell_keys(written, columns.key[rows]):
        written = None
    return Transactions(
        event_id=columns.key[rows],
        time=columns.time[rows],
        amount=columns.amount[rows],
        label=columns.label[rows],
        label_time=columns.label_time[rows],
        entities={entity.column: entities[entity.column] for entity in config.entities},
        kinds={entity.column: entity.kind for entity in config.entities},
        index=index,
        numeric={name: values[rows] for name, values in columns.numeric.items()},
        categorical=categorical,
        categories=categories,
        event_names=written,
    ), unsorted
