"""Columns as users write them -> times, amounts, labels and numbers as arrays.

Every parser returns values for all rows and, by rule name, masks of the rows whose value is no
good; it raises ``DataError`` only when the column as a whole is of the wrong type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.fraud.dataset import AmountUnit, TimeUnit
from tasks.fraud.ingest.identifiers import BLANKS, EXACT_FLOAT
from tasks.fraud.transactions import UNKNOWN

Mask = NDArray[np.bool_]

MAX_AMOUNT = 10**15
"""Largest amount in minor units: sums over thousands of them still fit int64 and float64."""

NO_TIME = -(2**62)
"""Stands for a time too far off for int64 milliseconds; earlier than any allowed time."""

_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_FAR = 10**15  # milliseconds: some 30,000 years either side of the origin


class DataError(ValueError):
    """Data that no run can use; the message says what, where and how to mend it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed column.

    Attributes:
        values: One value per row; meaningless where a problem is marked.
        problems: Name -> mask of the rows that have it.
        numbers: int64 or float64, the values before they were rounded or turned into labels.
    """

    values: NDArray[Any]
    problems: dict[str, Mask] = field(default_factory=dict)
    numbers: NDArray[Any] = field(default_factory=lambda: np.zeros(0))


def plain_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array without dictionary or extension types, large strings."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # an empty column stays chunked in some versions
        array = pa.concat_arrays(array.chunks) if array.chunks else pa.array([], array.type)
    return array


def is_text(array: pa.Array) -> bool:
    """Tell whether an array holds strings."""
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def nulls(array: pa.Array) -> Mask:
    """Return the mask of null values, bool [n]."""
    mask: Mask = array.is_null().to_numpy(zero_copy_only=False)
    return mask


def parse_numbers(array: pa.Array, name: str) -> Parsed:
    """Read numbers, booleans or text that spells numbers.

    Returns:
        int64 or float64 values (0 where missing; infinities stay), problems ``missing`` and
        ``invalid``.

    Raises:
        DataError: When the column holds something else, or text of which nothing is a number.
    """
    kind, missing = array.type, nulls(array)
    invalid = np.zeros(len(array), np.bool_)
    if pa.types.is_null(kind):
        return Parsed(np.zeros(len(array)), {"missing": missing, "invalid": invalid})
    if is_text(array):
        text = texts(array)
        missing = text.is_null().to_numpy()
        number = text.cast(pl.Float64, strict=False)
        invalid = number.is_null().to_numpy() & ~missing
        _refuse_all(invalid, missing, text, name, "numbers")
        values = number.fill_null(0.0).to_numpy().copy()
    elif pa.types.is_uint64(kind):
        unsigned = array.fill_null(0).to_numpy(zero_copy_only=False)
        invalid = unsigned > np.uint64(2**63 - 1)
        values = unsigned.astype(np.int64)
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        values = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        array = array.cast(pa.float32()) if pa.types.is_float16(kind) else array
        values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False).copy()
    else:
        raise _wrong_type(name, array, "numbers")
    if values.dtype == np.float64:
        not_number = np.isnan(values)
        missing = missing | not_number
        values[not_number] = 0.0
    return Parsed(values, {"missing": missing, "invalid": invalid})


def parse_times(array: pa.Array, name: str, unit: TimeUnit, origin_ms: int) -> Parsed:
    """Read timestamps, dates, ISO 8601 text or numbers with a unit and an origin.

    Times without a zone are taken as UTC. Fractions of a millisecond are cut off.

    Returns:
        int64 epoch milliseconds, problems ``missing`` and ``unparsable``; times too far off for
        int64 become ``NO_TIME``.

    Raises:
        DataError: When the column holds something else, or bare numbers and no unit is given.
    """
    kind, missing = array.type, nulls(array)
    if pa.types.is_timestamp(kind):
        ticks = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return _parsed_times(_to_ms(ticks, _MS[kind.unit]), missing, np.zeros_like(missing))
    if pa.types.is_date32(kind):
        ticks = array.cast(pa.int32()).cast(pa.int64()).fill_null(0)
        ms = _to_ms(ticks.to_numpy(zero_copy_only=False), _MS["d"])
        return _parsed_times(ms, missing, np.zeros_like(missing))
    if pa.types.is_date64(kind):
        ticks = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return _parsed_times(_to_ms(ticks, 1), missing, np.zeros_like(missing))
    if is_text(array) and unit == "auto":
        return _parse_iso(array, name)
    if unit == "auto" and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(
            f"time column {name!r} holds bare numbers ({kind}): set time_unit "
            '("s", "ms", "h" ...) and, unless they count from 1970, time_origin in the config'
        )
    if not (is_text(array) or pa.types.is_null(kind) or _is_numeric(kind)):
        raise _wrong_type(name, array, "timestamps, ISO 8601 text or numbers")
    numbers = parse_numbers(array, name)
    ms = _to_ms(numbers.values, _MS["ms" if unit == "auto" else unit])
    near = ms != NO_TIME
    ms[near] += origin_ms
    return _parsed_times(ms, numbers.problems["missing"], numbers.problems["invalid"])


def parse_amounts(array: pa.Array, name: str, unit: AmountUnit, decimals: int) -> Parsed:
    """Read amounts as int64 minor units.

    Major units are rounded exactly, half to even, as the decimal number a person sees: 1.015
    gives 102 cents although the float lies below it. Minor units must be whole.

    Returns:
        int64 minor units, ``numbers`` in the unit of the column, problems ``missing``,
        ``unparsable``, ``infinite``, ``fractional`` and ``overflow``.

    Raises:
        DataError: When the column holds something else.
    """
    if not (is_text(array) or pa.types.is_null(array.type) or _is_numeric(array.type)):
        raise _wrong_type(name, array, "numbers")
    numbers = parse_numbers(array, name)
    scale = 10**decimals if unit == "major" else 1
    values = numbers.values
    infinite = np.isinf(values)
    overflow = ~infinite & (np.abs(values.astype(np.float64)) > MAX_AMOUNT / scale)
    usable = ~(infinite | overflow)
    fractional = np.zeros(len(array), np.bool_)
    if values.dtype == np.int64:
        minor = np.where(usable, values, 0) * scale
    else:
        values = np.where(usable, values, 0.0)
        minor, tie = _round_minor(values, scale, single=pa.types.is_float32(array.type))
        if unit == "minor":
            fractional = (values != minor) & (values >= 0)  # below zero is worse
        else:
            rows = np.flatnonzero(tie & ~numbers.problems["missing"])
            minor[rows] = _round_exact(array, rows, decimals)
    problems = {
        "missing": numbers.problems["missing"],
        "unparsable": numbers.problems["invalid"],
        "infinite": infinite,
        "overflow": overflow,
        "fractional": fractional,
    }
    return Parsed(minor, problems, numbers.values)


def parse_labels(array: pa.Array, name: str) -> Parsed:
    """Read labels: 1/true fraud, 0/false legitimate, null/NaN/blank unknown.

    Returns:
        int8 labels (-1: neither 0 nor 1), whole ``numbers``, problems ``missing`` and
        ``unparsable`` (no whole number).

    Raises:
        DataError: When the column holds something else throughout.
    """
    if is_text(array):
        text = texts(array).str.to_lowercase().str.replace(r"\.0+$", "")
        words = {"1": 1, "true": 1, "0": 0, "false": 0}
        label = text.replace_strict(words, default=None, return_dtype=pl.Int64)
        missing = text.is_null().to_numpy()
        unknown = label.is_null().to_numpy() & ~missing
        _refuse_all(unknown, missing, text, name, "labels (0/1, true/false or empty)")
        labels = label.fill_null(UNKNOWN).to_numpy().astype(np.int8)
        number = label
        if unknown.any():
            number = text.cast(pl.Int64, strict=False)
            # As JSON spells numbers: 00 and +1 are none.
            number = number.set(number.cast(pl.String).ne_missing(text), None)
            number = number.zip_with(label.is_null(), label)
        unparsable = number.is_null().to_numpy() & ~missing
        problems = {"missing": missing, "unparsable": unparsable}
        return Parsed(labels, problems, number.fill_null(0).to_numpy())
    if not (pa.types.is_null(array.type) or _is_numeric(array.type)):
        raise _wrong_type(name, array, "labels (0/1, true/false or null)")
    numbers = parse_numbers(array, name)
    missing = numbers.problems["missing"]
    known = (numbers.values == 0) | (numbers.values == 1)
    invalid = ~known & ~missing
    if invalid.any() and not (known & ~missing).any():
        observed = numbers.values[invalid][0]
        raise DataError(
            f"label column {name!r} holds neither 0 nor 1 (first value {observed:g}): "
            "name the right column as 'label', or leave it empty for unlabelled data"
        )
    unparsable, whole = numbers.problems["invalid"], numbers.values
    if whole.dtype != np.int64:
        unparsable = unparsable | ~((np.abs(whole) < EXACT_FLOAT) & (whole == np.rint(whole)))
        whole = np.where(unparsable, 0, whole).astype(np.int64)
    return Parsed(
        np.where(known & ~missing, numbers.values, UNKNOWN).astype(np.int8),
        {"missing": missing, "unparsable": unparsable & ~missing},
        whole,
    )


def texts(array: pa.Array) -> pl.Series:
    """Return strings without surrounding blanks; blank ones become null."""
    text = pl.Series(pl.from_arrow(array)).str.strip_chars(BLANKS)
    return text.set(text == "", None)


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        test(kind)
        for test in (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    )


def _parsed_times(ms: NDArray[np.int64], missing: Mask, unparsable: Mask) -> Parsed:
    return Parsed(ms, {"missing": missing, "unparsable": unparsable})


def _to_ms(ticks: NDArray[Any], factor: float) -> NDArray[np.int64]:
    """Scale ticks to milliseconds; what lies beyond 30,000 years becomes ``NO_TIME``."""
    with np.errstate(over="ignore"):  # infinitely far is far, too
        near = np.abs(ticks.astype(np.float64)) * factor <= _FAR
    if ticks.dtype == np.int64:
        safe = np.where(near, ticks, 0)
        ms = safe * int(factor) if factor >= 1 else safe // round(1 / factor)
    else:
        # rounding to the nanosecond first keeps 1.001 s from becoming 1000 ms
        safe = np.where(near, ticks, 0.0) * factor
        ms = np.floor(np.round(safe, 6)).astype(np.int64)
    return np.where(near, ms, NO_TIME)


def _parse_iso(array: pa.Array, name: str) -> Parsed:
    text = texts(array)
    missing = text.is_null().to_numpy()
    for target in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            ticks = pc.cast(text.to_arrow(), target).cast(pa.int64()).fill_null(0)
        except pa.ArrowInvalid:
            continue
        ms = _to_ms(ticks.to_numpy(zero_copy_only=False), _MS["us"])
        return _parsed_times(ms, missing, np.zeros_like(missing))
    ms = np.array([_iso_ms(value) for value in text.to_list()], np.int64)
    unparsable = (ms == NO_TIME) & ~missing
    _refuse_all(unparsable, missing, text, name, "ISO 8601 times such as 2018-04-01T12:30:00")
    return _parsed_times(ms, missing, unparsable)


def _iso_ms(text: str | None) -> int:
    if text is None:
        return NO_TIME
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return NO_TIME
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    elapsed = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return elapsed.days * 86_400_000 + elapsed.seconds * 1_000 + elapsed.microseconds // 1_000


def _round_minor(
    values: NDArray[np.float64], scale: int, *, single: bool
) -> tuple[NDArray[np.int64], Mask]:
    """Round scaled floats; also mark those too near a tie for the product to be trusted."""
    scaled = values * scale
    slack = np.abs(scaled) * (2.0**-22 if single else 2.0**-50)
    tie = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5) <= slack
    return np.rint(scaled).astype(np.int64), tie


def _round_exact(array: pa.Array, rows: NDArray[np.intp], decimals: int) -> list[int]:
    """Round by the shortest decimal text of each value, half to even."""
    chosen = array.take(pa.array(rows))
    if pa.types.is_floating(array.type):
        values: list[Any] = list(chosen.to_numpy(zero_copy_only=False))  # keeps single precision
    else:
        values = chosen.to_pylist()
    return [
        int(Decimal(str(value).strip()).scaleb(decimals).quantize(Decimal(1), ROUND_HALF_EVEN))
        for value in values
    ]


def _refuse_all(invalid: Mask, missing: Mask, text: pl.Series, name: str, wanted: str) -> None:
    """Raise when nothing in a text column can be read."""
    if invalid.any() and bool((invalid | missing).all()):
        raise DataError(
            f"column {name!r} holds text that spells no {wanted} (first value "
            f"{text[int(np.argmax(invalid))]!r}): convert the column or name another one"
        )


def _wrong_type(name: str, array: pa.Array, wanted: str) -> DataError:
    return DataError(
        f"column {name!r} has type {array.type}, not {wanted}: convert the column or name "
        "another one in the config"
    )
