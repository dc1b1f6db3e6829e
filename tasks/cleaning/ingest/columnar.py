"""Arrow tables (from Parquet) as frames of texts, nested columns flattened, bad rows as records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.cleaning.ingest.dialect import unique_names
from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.options import MIB, ReadLimits, ReadOptions, TableBatch, TableLayout
from tasks.cleaning.ingest.rejects import (
    CELL_TOO_LARGE,
    NUL_BYTE,
    UNDECODABLE,
    Reject,
    reject_table,
)
from tasks.cleaning.quarantine import Rule, row_payloads

PIECE_BYTES = 64 * MIB
"""Text that a batch holds at most, one large row apart: a dictionary of one long value repeated
takes a few bytes in the file."""


def read_columnar(
    tables: Iterator[pa.Table], source: str, options: ReadOptions
) -> Iterator[TableBatch]:
    """Yield the rows of tables as texts; structs become ``a.b``, lists JSON text.

    Structs below the depth that is flattened become JSON text, too. A row is quarantined, as JSON,
    when a text is no UTF-8, holds a NUL or is too large.

    Args:
        tables: Pieces of one table; string columns may come as dictionaries.
        source: Name of the file.
        options: Limits, and the time of the records.

    Raises:
        TableReadError: When a row takes more than is granted.
    """
    row = 0
    for table in tables:
        flat = _flatten(table, options.limits)
        layout = TableLayout("parquet", unique_names(flat.column_names, flat.num_columns), "")
        for piece in _pieces(flat, source, row, options.limits):
            yield _batch(piece, layout, row, source, options)
            row += piece.num_rows


def _flatten(table: pa.Table, limits: ReadLimits) -> pa.Table:
    for _ in range(limits.depth - 1):
        if not any(pa.types.is_struct(field.type) for field in table.schema):
            break
        table = table.flatten()
    return table


def _pieces(table: pa.Table, source: str, row: int, limits: ReadLimits) -> Iterator[pa.Table]:
    """Yield a table in pieces whose texts fit."""
    size = sum(_text_bytes(column) for column in table.columns)
    if size <= PIECE_BYTES or table.num_rows <= 1:
        if size > max(limits.row_bytes, PIECE_BYTES):
            raise TableReadError(
                f"{source}, row {row}",
                f"one row takes more than {limits.row_bytes / MIB:.0f} MiB",
                "leave its largest column out, or raise the limit 'row_bytes'",
            )
        yield table
        return
    half = table.num_rows // 2
    for part in (table.slice(0, half), table.slice(half)):
        yield from _pieces(part, source, row, limits)
        row += part.num_rows


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column once its dictionaries are unfolded."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        else:
            total += chunk.nbytes
    return total


def _batch(
    table: pa.Table, layout: TableLayout, first: int, source: str, options: ReadOptions
) -> TableBatch:
    """Return a piece as texts and records."""
    faults: dict[int, tuple[Rule, str]] = {}
    columns, raw = [], []
    for name, column in zip(layout.columns, table.columns, strict=True):
        sound = _is_sound(column, options.limits)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)  # noqa: PLW2901 - the same, unfolded
        if sound:
            text, binary = pl.Series(name, pl.from_arrow(column), pl.String), column
        else:
            text, binary = _as_text(column, faults, name, options.limits)
        columns.append(text)
        raw.append(binary)
    bad = np.array(sorted(faults), np.int64)
    kept = np.delete(np.arange(table.num_rows), bad)
    frame = pl.DataFrame(dict(zip(layout.columns, columns, strict=True)))
    rejects: list[Reject] = []
    if len(bad):
        frame = frame[kept]
        stood = pa.table(raw, names=list(layout.columns)).take(pa.array(bad))
        for number, payload in zip(bad.tolist(), row_payloads(stood), strict=True):
            rule, column_name = faults[number]
            rejects.append(Reject(number + first, payload, rule, column=column_name))
    records = reject_table(rejects, source, options.time)
    return TableBatch(frame, kept + first, records, table.num_rows, layout)


def _is_sound(column: pa.ChunkedArray, limits: ReadLimits) -> bool:
    """Return whether all values are texts without any fault, told by the buffers as a whole.

    False may also mean that it was not found out: `_as_text` looks at each value.
    """
    for chunk in column.chunks:
        values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return False
        try:
            values.validate(full=True)
        except pa.ArrowInvalid:
            return False
        text = values.buffers()[2]
        if text is not None and (text.size > limits.cell_bytes or b"\0" in text.to_pybytes()):
            return False
    return True


def _as_text(
    column: pa.ChunkedArray, faults: dict[int, tuple[Rule, str]], name: str, limits: ReadLimits
) -> tuple[pl.Series, pa.ChunkedArray]:
    """Return a column as texts and as it stood; notes the first fault of each row."""
    kind = column.type
    if _is_text(kind):
        stood = column.cast(pa.large_binary())
        _note(faults, name, UNDECODABLE, _not_utf8(stood))
        lengths = pc.fill_null(pc.binary_length(stood), 0).to_numpy()
        _note(faults, name, CELL_TOO_LARGE, np.flatnonzero(lengths > limits.cell_bytes))
        if faults:
            mask = np.zeros(len(column), np.bool_)
            mask[list(faults)] = True
            blanked = pc.if_else(pa.array(mask), pa.scalar(None, pa.large_binary()), stood)
        else:
            blanked = stood
        text = pl.Series(name, pl.from_arrow(blanked.cast(pa.large_string())), pl.String)
        nul = text.str.contains("\0", literal=True).fill_null(value=False).to_numpy()
        _note(faults, name, NUL_BYTE, np.flatnonzero(nul))
        return text, stood
    try:
        if pa.types.is_nested(kind):
            raise pa.ArrowNotImplementedError(str(kind))
        return pl.Series(name, pl.from_arrow(column)).cast(pl.String), column
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError):
        values = [_json_text(value) for value in column.to_pylist()]
        return pl.Series(name, values, pl.String), pa.chunked_array([pa.array(values, pa.string())])


def _note(
    faults: dict[int, tuple[Rule, str]], name: str, rule: Rule, rows: NDArray[np.int64]
) -> None:
    for row in rows.tolist():
        faults.setdefault(row, (rule, name))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )


def _not_utf8(stood: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return rows whose bytes are no UTF-8."""
    try:
        stood.cast(pa.large_string())
    except pa.ArrowInvalid:
        return np.flatnonzero([not _is_utf8(value) for value in stood.to_pylist()])
    return np.empty(0, np.int64)


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
