"""One JSON object -> one transaction or label, by the rules of ``tasks.fraud.ingest.checks``.

A table is checked column by column, a request value by value; both know the same rules by the same
names, so a row that is refused in one place is refused in the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.ingest.identifiers import BLANKS, EXACT_FLOAT, entity_id, event_key
from tasks.fraud.ingest.parsing import MAX_AMOUNT

MAX_ID_BYTES = 256
"""Longest id of an entity or event, UTF-8 bytes; keys of stores have a limit."""

_FAR = 10**15  # milliseconds, some 30,000 years: beyond it a time is impossible
_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf(?:inity)?|nan)",
    re.ASCII | re.IGNORECASE,  # digits of other scripts are none, in files and streams either
)
_FORBIDDEN = {"\0", "\x1f"}
"""What no id may hold: keys of stores and joined columns are cut there."""

_LABELS = {"1": 1, "true": 1, "0": 0, "false": 0}
_INT64 = range(-(2**63), 2**63)


class RowError(ValueError):
    """A value that breaks a rule of the checks.

    Attributes:
        rule: Name of the rule, see ``tasks.fraud.ingest.checks.RULES``.
        column: Column of the value.
        observed: The value as text, shortened; None where it is missing.
    """

    def __init__(self, rule: str, column: str, observed: object = None) -> None:
        self.rule, self.column = rule, column
        self.observed = None if observed is None else str(observed)[:200]
        shown = "" if self.observed is None else f": {self.observed!r}"
        super().__init__(f"{rule} in {column!r}{shown}")


@dataclass(frozen=True, slots=True)
class OnlineTransaction:
    """One checked transaction.

    Attributes:
        event_id: int64 key of the id.
        event_name: The id as it was sent.
        time: Epoch milliseconds.
        amount: Minor units.
        entities: Canonical id per entity column, in the order of the config.
        numeric: Extra numbers, NaN where missing.
        categorical: Extra categories, None where missing.
    """

    event_id: int
    event_name: str
    time: int
    amount: int
    entities: tuple[str, ...]
    numeric: tuple[float, ...] = ()
    categorical: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class OnlineLabel:
    """One checked label.

    Attributes:
        event_id: int64 key of the transaction's id.
        event_name: The id as it was sent.
        time: Epoch milliseconds of the transaction.
        entities: Canonical id per entity column of the transaction.
        label: 1 fraud, 0 legitimate.
        label_time: Epoch milliseconds from which the label may be used (delay included).
    """

    event_id: int
    event_name: str
    time: int
    entities: tuple[str, ...]
    label: int
    label_time: int


def parse_transaction(
    data: Mapping[str, Any], config: DatasetConfig, now: int
) -> OnlineTransaction:
    """Check one transaction.

    Args:
        data: The object as sent; members the config does not name are ignored.
        config: What its members mean.
        now: The present, epoch milliseconds; later times than ``max_future_days`` after it are
            impossible.

    Raises:
        RowError: On the first rule it breaks, in the order of the checks.
    """
    time = _event_time(data.get(config.time), config, config.time, "time", now)
    amount = parse_amount(data.get(config.amount), config, config.amount)
    entities = _entities(data, config)
    numeric = tuple(parse_number(data.get(name)) for name in config.numeric)
    categorical = tuple(_category(data.get(name), name) for name in config.categorical)
    key, name = parse_event_id(data, config)
    return OnlineTransaction(key, name, time, amount, entities, numeric, categorical)


def parse_label(data: Mapping[str, Any], config: DatasetConfig, now: int) -> OnlineLabel:
    """Check one label message; arguments and errors as ``parse_transaction``.

    The label stands under ``config.label`` (``label`` if the config has none), the time it became
    known under ``config.label_time`` (``label_time``); without that the delay alone rules.
    """
    time = _event_time(data.get(config.time), config, config.time, "time", now)
    entities = _entities(data, config)
    column = config.label or "label"
    label = parse_label_value(data.get(column), column)
    column = config.label_time or "label_time"
    known = data.get(column)
    label_time = time + config.delay_ms
    if not _missing(known):
        label_time = max(label_time, _event_time(known, config, column, "label-time", now))
    key, name = parse_event_id(data, config)
    return OnlineLabel(key, name, time, entities, label, label_time)


def parse_time(value: Any, config: DatasetConfig, column: str, what: str = "time") -> int:
    """Read a time as epoch milliseconds, fractions cut off.

    Raises:
        RowError: ``missing-*``, ``unparsable-*`` or, thousands of years away, ``impossible-*``.
    """
    if _missing(value):
        raise RowError(f"missing-{what}", column)
    unit = config.time_unit
    if unit == "auto":
        if not isinstance(value, str):
            raise RowError(f"unparsable-{what}", column, value)
        return _iso_ms(value.strip(BLANKS), column, what)
    number = _number(value)
    if number is None:
        raise RowError(f"unparsable-{what}", column, value)
    if math.isnan(number):
        raise RowError(f"missing-{what}", column)
    factor = _MS[unit]
    if abs(number) * factor > _FAR:
        raise RowError(f"impossible-{what}", column, value)
    if isinstance(number, int):
        ms = number * int(factor) if factor >= 1 else number // round(1 / factor)
    else:
        ms = math.floor(round(number * factor, 6))
    return ms + config.origin_ms


def parse_amount(value: Any, config: DatasetConfig, column: str) -> int:
    """Read an amount as minor units, major ones rounded half to even as decimal numbers.

    Raises:
        RowError: With the rule it breaks.
    """
    if _missing(value):
        raise RowError("missing-amount", column)
    number = _number(value)
    if number is None:
        raise RowError("unparsable-amount", column, value)
    if math.isnan(number):
        raise RowError("missing-amount", column)
    if math.isinf(number):
        raise RowError("infinite-amount", column, value)
    scale = 10**config.decimals if config.amount_unit == "major" else 1
    if abs(number) > MAX_AMOUNT / scale:
        raise RowError("overflow-amount", column, value)
    if number < 0:
        raise RowError("negative-amount", column, value)
    if isinstance(number, int):
        return number * scale
    if config.amount_unit == "minor":
        if not number.is_integer():
            raise RowError("fractional-amount", column, value)
        return int(number)
    scaled = number * scale
    if abs(abs(scaled - math.floor(scaled)) - 0.5) > scaled * 2.0**-50:
        return round(scaled)
    exact = Decimal(value.strip(BLANKS) if isinstance(value, str) else repr(number))
    return int(exact.scaleb(config.decimals).quantize(Decimal(1), ROUND_HALF_EVEN))


def parse_label_value(value: Any, column: str) -> int:
    """Read a label: 1 or true is fraud, 0 or false legitimate.

    Raises:
        RowError: ``invalid-label``, also where it is missing: an unknown label is not sent.
    """
    if isinstance(value, str):
        text = re.sub(r"\.0+$", "", value.strip(BLANKS).lower())
        if text in _LABELS:
            return _LABELS[text]
    elif isinstance(value, int | float) and value in (0, 1):
        return int(value)
    raise RowError("invalid-label", column, value)


def parse_number(value: Any) -> float:
    """Read an extra number; NaN where it is missing, no number or not finite."""
    number = None if _missing(value) else _number(value)
    if number is None:
        return math.nan
    if isinstance(number, int) and number not in _INT64:
        return math.nan
    return float(number) if math.isfinite(number) else math.nan


def _event_time(value: Any, config: DatasetConfig, column: str, what: str, now: int) -> int:
    ms = parse_time(value, config, column, what)
    if not config.earliest_ms <= ms <= now + round(config.max_future_days * 86_400_000):
        raise RowError(f"impossible-{what}", column, value)
    return ms


def _iso_ms(text: str, column: str, what: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise RowError(f"unparsable-{what}", column, text) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    elapsed = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return elapsed.days * 86_400_000 + elapsed.seconds * 1_000 + elapsed.microseconds // 1_000


def _entities(data: Mapping[str, Any], config: DatasetConfig) -> tuple[str, ...]:
    ids = []
    for entity in config.entities:
        value = data.get(entity.column)
        if isinstance(value, dict | list) or _inexact(value):
            raise RowError("invalid-entity", entity.column, value)
        text = entity_id(value)
        if text is None:
            raise RowError("missing-entity", entity.column, value)
        if len(text.encode(errors="replace")) > MAX_ID_BYTES or not _FORBIDDEN.isdisjoint(text):
            raise RowError("invalid-entity", entity.column, value)
        ids.append(text)
    return tuple(ids)


def _category(value: Any, column: str) -> str | None:
    if isinstance(value, dict | list):
        raise RowError("invalid-category", column, value)
    return entity_id(value)


def parse_event_id(data: Mapping[str, Any], config: DatasetConfig) -> tuple[int, str]:
    """Read the id of an event: its int64 key, and the id as it was sent.

    Raises:
        RowError: ``missing-id`` or ``invalid-id``.
    """
    column = config.event_id or "event_id"
    value = data.get(column)
    if _missing(value):
        raise RowError("missing-id", column)
    if isinstance(value, str):
        if len(value.encode(errors="replace")) > MAX_ID_BYTES:
            raise RowError("invalid-id", column, value)
        return event_key(value), value
    if isinstance(value, float) and value.is_integer() and not _inexact(value):
        value = int(value)
    # The order matters: a float is looked for in a range by walking it.
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise RowError("invalid-id", column, value)
    return value, str(value)


def _missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip(BLANKS)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _inexact(value: Any) -> bool:
    """A float beyond 2^53: neighbouring ids are already mixed up."""
    return isinstance(value, float) and math.isfinite(value) and abs(value) > EXACT_FLOAT


def _number(value: Any) -> int | float | None:
    """Return what a value spells as a number; None when it spells none."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        text = value.strip(BLANKS)
        if _NUMBER.fullmatch(text):
            return float(text)
    return None
