"""Random streams and record batches: what every simulator mode shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DAY = 86_400
"""Seconds of a day."""

BATCH_ROWS = 1 << 18
"""Rows of a record batch, and so of a Parquet row group."""


class Stream(IntEnum):
    """Independent random streams of one seed; the number is part of the seed."""

    CARDS = 1
    TERMINALS = 2
    COUNTS = 3
    COLUMNS = 4
    FRAUDS = 5
    ACCOUNTS = 6
    TRANSFERS = 7
    RINGS = 8
    TESTERS = 9


def generator(seed: int, stream: Stream, day: int = 0) -> np.random.Generator:
    """Return the generator of one stream and day.

    Each day draws from its own generator: a day's rows do not depend on how many days are written
    at once.
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, int(stream), day])))


def time_order(second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of one day in time order, ties in the order they were drawn.

    Sorting (second, row) packed in one integer is several times faster than a stable argsort and,
    other than an unstable one, gives the same order on every processor.
    """
    packed = (second << 32) | np.arange(len(second), dtype=np.int64)
    packed.sort()
    packed &= 0xFFFF_FFFF
    return packed


def check_counts(**values: int) -> None:
    """Raise ``ValueError`` for sizes below 1 or above what int32 ids can name."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
        if value >= 2**31:
            raise ValueError(f"{name} must be below 2**31 (ids are int32), got {value}")


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` for a negative seed."""
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")


def record_batches(
    days: Iterable[Mapping[str, NDArray[Any]]], schema: pa.Schema, rows: int
) -> Iterator[pa.RecordBatch]:
    """Cut the days' columns into batches of ``rows`` and number the rows.

    Args:
        days: Columns of one day each, in time order, all but ``tx_id``.
        schema: Columns to give out; ``tx_id`` is the rank in the whole stream.
        rows: Rows of each batch but the last.

    Yields:
        Record batches of ``schema``; at least one, empty if there is no row at all.

    Raises:
        ValueError: When ``rows`` is below 1.
    """
    if rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {rows}")
    return _cut(days, schema, rows)


def _cut(
    days: Iterable[Mapping[str, NDArray[Any]]], schema: pa.Schema, rows: int
) -> Iterator[pa.RecordBatch]:
    names = [name for name in schema.names if name != "tx_id"]
    held: list[tuple[NDArray[Any], ...]] = []
    waiting = first = 0
    for day in days:
        columns = tuple(day[name] for name in names)
        held.append(columns)
        waiting += len(columns[0])
        if waiting < rows:
            continue
        joined = _join(held)
        start = 0
        while waiting - start >= rows:
            yield _batch(tuple(c[start : start + rows] for c in joined), first + start, schema)
            start += rows
        held = [tuple(c[start:].copy() for c in joined)]
        first += start
        waiting -= start
    if waiting or first == 0:
        yield _batch(_join(held), first, schema)


def _join(held: list[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    return tuple(np.concatenate(parts) for parts in zip(*held, strict=True))


def _batch(columns: tuple[NDArray[Any], ...], first: int, schema: pa.Schema) -> pa.RecordBatch:
    tx_id = np.arange(first, first + len(columns[0]), dtype=np.int64)
    arrays = [
        _arrow(values, field.type) for values, field in zip((tx_id, *columns), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Wrap an integer column without a copy; ``pa.array`` would first import pandas (a second)."""
    values = np.ascontiguousarray(values, dtype=np.dtype(str(kind)))
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
