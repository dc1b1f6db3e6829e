"""Checks before training: a table becomes sorted transactions, bad rows go to quarantine.

Columns are parsed, then held against the contract of ``tasks/fraud/contract.py``. A row is
quarantined once, under the first line it breaks in the order of the contract, lines of a person
after those of the config; duplicates are looked for last, among rows that are otherwise good, and
the first in the file stays. A row that
lacks any of its entity ids is quarantined: an entity called "missing" would join strangers.
Tolerated and counted: rows out of time order, unlabelled rows, missing extra columns' values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Contract, ContractError
from tasks.cleaning.contract.rules import row_rules
from tasks.fraud.contract import (
    RULES,
    VERSION,
    contract_of,
    own_rules,
    rule_names,
    transaction_contract,
    until,
)
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
    DataError,
    Parsed,
    is_text,
    parse_amounts,
    parse_labels,
    parse_numbers,
    parse_times,
    plain_array,
    texts,
)
from tasks.fraud.ingest.read_columns import (
    JudgedColumn,
    amount_column,
    coded_column,
    id_column,
    label_column,
    number_column,
    plain_column,
    time_column,
)
from tasks.fraud.ingest.screen import Screen
from tasks.fraud.transactions import UNKNOWN, Transactions

__all__ = [
    "RULES",
    "VERSION",
    "CheckReport",
    "CheckedData",
    "DataError",
    "QuarantineLimitError",
    "check",
    "require_trainable",
]


@dataclass(frozen=True, slots=True)
class CheckedData:
    """Good rows, bad rows, the count of both, and what they were held against."""

    transactions: Transactions
    quarantine: pa.Table
    report: CheckReport
    contract: Contract


def check(
    table: pa.Table,
    config: DatasetConfig,
    source: str,
    *,
    own: Contract | None = None,
    now: datetime | None = None,
) -> CheckedData:
    """Turn a table into checked transactions.

    Args:
        table: The data as read from a file.
        config: What its columns mean.
        source: Name of the file for records and messages.
        own: Lines that a person adds to the contract of the config, see ``with_own_lines``.
        now: The present; times later than ``config.max_future_days`` after it are impossible.

    Raises:
        ContractError: When ``own`` contradicts the config.
        DataError: When a column is absent or of the wrong type, or the table has no rows, or
            fewer or more than the contract asks for.
        QuarantineLimitError: When more rows than ``max_quarantine_share`` are bad, or all of them.
    """
    now = now or datetime.now(UTC)
    schema = transaction_contract(config)
    contract = contract_of(config, own)
    _require_columns(table, config, contract, source)
    try:
        columns = _parse(table, config, contract)
        screen = Screen(table, source, now)
        _judge(columns, config, schema, contract, screen)
    except (DataError, ContractError) as error:
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
    enforce_limit(report, quarantine, contract.max_quarantine_share)
    return CheckedData(transactions, quarantine, report, contract)


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
    judged: dict[str, JudgedColumn]


def _require_columns(
    table: pa.Table, config: DatasetConfig, contract: Contract, source: str
) -> None:
    names, there = list(contract.columns), table.column_names
    absent = [name for name in names if name not in there]
    if absent:
        where = "dataset config" if absent[0] in config.columns else "contract of"
        raise DataError(
            f"{source}: no column {', '.join(map(repr, absent))}; the file has "
            f"{', '.join(there)}: mend the {where} '{config.name}'"
        )
    twice = [name for name in names if there.count(name) > 1]
    if twice:
        raise DataError(f"{source}: two columns are called {twice[0]!r}; rename one")
    if len(table) == 0:
        raise DataError(f"{source}: the table has a header but no rows; export it again")
    if len(table) < contract.min_rows or 0 < contract.max_rows < len(table):
        raise DataError(
            f"{source}: {len(table):,} rows; the contract of '{config.name}' asks for "
            f"{contract.min_rows:,} to {contract.max_rows or 'any number of'}"
        )


def _parse(table: pa.Table, config: DatasetConfig, contract: Contract) -> _Columns:
    judged: dict[str, JudgedColumn] = {}

    def column(name: str) -> pa.Array:
        return plain_array(table.column(name))

    def times(name: str) -> Parsed:
        parsed = parse_times(column(name), name, config.time_unit, config.origin_ms)
        judged[name] = time_column(parsed)
        return parsed

    time = times(config.time).values
    amount = parse_amounts(
        column(config.amount), config.amount, config.amount_unit, config.decimals
    )
    judged[config.amount] = amount_column(amount, config.amount_unit)
    entities = {}
    for name in (entity.column for entity in config.entities):
        entities[name] = encode(_require_exact(column(name), name))
        judged[name] = coded_column(*entities[name])
    label = np.full(len(table), UNKNOWN, np.int8)
    if config.label:
        parsed = parse_labels(column(config.label), config.label)
        judged[config.label] = label_column(parsed)
        label = parsed.values
    label_time = time + config.delay_ms
    if config.label_time:
        known = times(config.label_time)
        there = ~known.problems["missing"]
        label_time = np.where(there, np.maximum(label_time, known.values), label_time)
    numeric, categorical = {}, {}
    for name in config.numeric:
        numbers = parse_numbers(column(name), name)
        judged[name] = number_column(numbers)
        numeric[name] = _with_gaps(numbers)
    for name in config.categorical:
        categorical[name] = encode(_scalar(column(name), name))
        judged[name] = coded_column(*categorical[name])
    key, names = np.arange(len(table), dtype=np.int64), None
    if config.event_id:
        key, names, judged[config.event_id] = _keys(column(config.event_id), config.event_id)
    for name in contract.columns:
        if name not in judged:
            judged[name] = plain_column(_scalar(column(name), name))
    return _Columns(
        key, names, time, amount.values, label, label_time, entities, numeric, categorical, judged
    )


def _keys(
    array: pa.Array, name: str
) -> tuple[NDArray[np.int64], NDArray[np.object_] | None, JudgedColumn]:
    """Return the keys by which rows are sorted and told apart, and the ids where they are text."""
    if is_text(array):
        text = texts(array)
        missing = text.is_null().to_numpy()
        keys = event_keys(text.fill_null("0"))
        judged = id_column(keys, array, missing, np.zeros_like(missing))
        return keys, array.to_numpy(zero_copy_only=False), judged
    numbers = parse_numbers(_require_exact(array, name), name)
    missing, invalid = numbers.problems["missing"], numbers.problems["invalid"]
    keys = numbers.values
    if keys.dtype != np.int64:
        whole = np.isfinite(keys) & (keys == np.rint(keys))
        invalid = invalid | ~whole
        keys = np.where(whole, keys, 0).astype(np.int64)
    return keys, None, id_column(keys, array, missing, invalid)


def _judge(
    columns: _Columns, config: DatasetConfig, schema: Contract, contract: Contract, screen: Screen
) -> None:
    """Set bad rows aside: by the schema's lines, then by a person's, then what repeats a row."""
    judged, names = columns.judged, rule_names(config)
    dated = until(schema, config, screen.now)
    own = own_rules(contract, schema)
    rules = [(rule, dated, names[rule.name]) for rule in row_rules(dated)]
    rules += [(rule, contract, ()) for rule in own]
    for rule, lines, called in rules:
        if not rule.key:
            screen.judge(rule, lines, judged, called)
    if config.event_id:
        # An id has no kind that a line could name: it is text, or a whole number.
        unread = judged[config.event_id].read.unread
        assert unread is not None  # noqa: S101 - id_column
        screen.refuse(RULES["invalid-id"], config.event_id, unread)
    for rule, lines, called in rules:  # last: of equal ids the first good row stays
        if rule.key:
            screen.refuse_repeats(rule, lines, judged, called)


def _with_gaps(parsed: Parsed) -> NDArray[np.float64]:
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
