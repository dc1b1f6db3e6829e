"""The one quarantine record: tables, streams, images and API bodies all set bad input aside as it.

A record keeps the original bytes, so that a repaired rule can replay what it once refused. Rows in
= rows used + rows quarantined, always; a merged duplicate is quarantined with ``duplicate-of``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Severity = Literal["error", "warning"]

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("payload", pa.binary(), nullable=False),  # original bytes; a table row: JSON
        pa.field("source", pa.string(), nullable=False),  # file, topic or route
        pa.field("row", pa.int64(), nullable=False),  # row of the file, or offset of the stream
        pa.field("rule", pa.string(), nullable=False),  # id of the rule that was broken
        pa.field("column", pa.string(), nullable=False),  # "" when the rule concerns the row
        pa.field("observed", pa.string()),  # null: the value was missing
        pa.field("expected", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("detector_version", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),  # when it was set aside
    ]
)
"""Arrow schema of every quarantine file, topic and table."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a record says about the check that set a row aside.

    Attributes:
        name: Stable id, for example ``"negative-amount"``.
        expected: What a good value looks like, for people.
        severity: ``warning`` for merged duplicates and the like, else ``error``.
        detector_version: Name and version of the check.
        confidence: 1.0 for exact rules, less for learned detectors.
    """

    name: str
    expected: str
    severity: Severity = "error"
    detector_version: str = "checks/1"
    confidence: float = 1.0

    def __post_init__(self) -> None:
        """Reject a nameless rule and an impossible confidence."""
        if not self.name:
            raise ValueError("a quarantine rule needs a name")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"rule {self.name!r}: confidence {self.confidence} must lie in 0..1")


def empty_quarantine() -> pa.Table:
    """Return a quarantine table without rows."""
    return QUARANTINE_SCHEMA.empty_table()


def quarantine_rows(
    table: pa.Table,
    rows: NDArray[np.int64] | NDArray[np.bool_],
    rule: Rule,
    *,
    source: str,
    column: str = "",
    expected: Sequence[str] | None = None,
    time: datetime | None = None,
    first_row: int = 0,
) -> pa.Table:
    """Build one record for every chosen row of a table.

    Args:
        table: The table as it was read.
        rows: Row numbers, or a mask over all rows.
        rule: The rule that these rows broke.
        source: Where the table came from.
        column: The column at fault; its value becomes ``observed``.
        expected: One text per chosen row where the rule's own text is not precise enough.
        time: When the rows were set aside; now if left out.
        first_row: Number of the table's first row in its source (for tables read in pieces).

    Returns:
        A table of ``QUARANTINE_SCHEMA``, in the order of ``rows``.
    """
    numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
    if len(numbers) == 0:
        return empty_quarantine()
    chosen = table.take(pa.array(numbers))
    n = len(numbers)
    observed = pa.nulls(n, pa.string())
    if column:
        values = chosen.column(column)
        observed = (
            values.cast(pa.string()).combine_chunks()
            if _is_text(values.type)
            else pa.array([None if v is None else _text(v) for v in _values(values)], pa.string())
        )
    return pa.table(
        [
            payload_array(chosen),
            pa.repeat(source, n),
            pa.array(numbers + first_row),
            pa.repeat(rule.name, n),
            pa.repeat(column, n),
            observed,
            pa.repeat(rule.expected, n) if expected is None else pa.array(expected, pa.string()),
            pa.repeat(rule.severity, n),
            pa.repeat(rule.detector_version, n),
            pa.repeat(rule.confidence, n),
            pa.repeat(pa.scalar(time or datetime.now(UTC), pa.timestamp("us", tz="UTC")), n),
        ],
        schema=QUARANTINE_SCHEMA,
    )


def payload_array(table: pa.Table) -> pa.Array:
    """Return `row_payloads` as an Arrow array of binary; tables of texts alone are quick."""
    if not table.num_columns or not all(_is_text(field.type) for field in table.schema):
        return pa.array(row_payloads(table), pa.binary())
    frame = pl.DataFrame(table)
    encoded = frame.select(pl.struct(pl.all()).struct.json_encode().alias("payload"))
    return encoded["payload"].to_arrow().cast(pa.binary())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def row_payloads(table: pa.Table) -> list[bytes]:
    """Return every row as compact JSON in UTF-8.

    Column order is kept, null stays null, numbers that JSON lacks (NaN, infinities), dates,
    decimals and bytes become strings.
    """
    names = table.column_names
    columns = [_values(column) for column in table.columns]
    return [
        json.dumps(
            {name: _plain(value) for name, value in zip(names, values, strict=True)},
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
        ).encode()
        for values in zip(*columns, strict=True)
    ]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return values as Python objects; a time that none can hold as its ticks and their unit."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        # Beyond the years 1 to 9999, bad rows above all.
        return f"{scalar.value} {getattr(scalar.type, 'unit', '')}".strip()


def _plain(value: Any) -> Any:
    """Return a value that strict JSON can hold."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
