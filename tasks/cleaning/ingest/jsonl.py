"""JSON lines read in batches: objects become rows of texts, numbers as they stand in the file.

Lines that look like the first one of their block (its keys in its order, plain values) are found
by one compiled pattern and go to Polars' reader; all others are parsed one by one, exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.ingest.dialect import unique_names
from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.json_rows import RowError, read_row
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions, TableBatch, TableLayout
from tasks.cleaning.ingest.rejects import UNKNOWN_KEY, Reject, reject_table
from tasks.cleaning.ingest.text_blocks import TextBlocks

STRING = rb'"[^"\\\x00-\x1f]*+(?:\\["\\/bfnrt][^"\\\x00-\x1f]*+)*+"'
NUMBER = rb"-?[1-9]\d{0,8}\.\d{0,5}[1-9]|-?0\.\d{0,3}[1-9]|-?[1-9]\d{0,14}|0"
VALUE = rb"(?:" + STRING + rb"|(?:" + NUMBER + rb")(?![\d.eE])|true|false|null)"
"""Values that Polars' reader gives back as they stand in the file."""


PLAIN_KEYS = 300
"""Most keys for which the pattern of a line is built."""

Ints = NDArray[np.int64]
Row = dict[str, str | None]


def read_jsonl(
    blocks: Iterable[bytes], source: str, options: ReadOptions | None = None
) -> Iterator[TableBatch]:
    """Yield the objects of JSON lines as texts, and lines that are no row as records.

    Nested objects become columns ``a.b``; lists stay as JSON text. Keys that are missing from an
    object give null. The columns are the keys of the first block, in their order.

    Args:
        blocks: The file, unpacked, in pieces of any size.
        source: Its name, for messages and records.
        options: Encoding and limits; the rest is of no concern here.

    Yields:
        At least one batch, about one per block.

    Raises:
        TableReadError: When the file as a whole cannot be read.
    """
    options = options or ReadOptions()
    yield from _JsonLines(source, options).read(blocks)


@dataclass(slots=True)
class _Plain:
    """Lines that go to Polars' reader.

    Attributes:
        keys: Their keys, all alike.
        text: The lines, in UTF-8.
        rows: Their numbers within the block.
    """

    keys: tuple[str, ...] = ()
    text: bytes = b""
    rows: list[Ints] = field(default_factory=list)


class _JsonLines:
    """One file being read."""

    def __init__(self, source: str, options: ReadOptions) -> None:
        self.source = source
        self.options = options
        self.limits = options.limits
        self.text = TextBlocks(source, options)
        self.keys: dict[str, int] = {}
        self.columns: tuple[str, ...] = ()
        self.rows = 0

    def read(self, blocks: Iterable[bytes]) -> Iterator[TableBatch]:
        """Yield the batches of the file."""
        buffer, any_batch = b"", False
        for block, final in self.text.read(blocks):
            buffer = buffer + block if buffer else block
            end = len(buffer) if final else buffer.rfind(b"\n") + 1
            part, buffer = buffer[:end], buffer[end:]
            self.text.require_progress(len(buffer), self.rows)
            batch = self._batch(part)
            if batch.rows_in:
                any_batch = True
                yield batch
        if not any_batch:
            raise TableReadError(self.source, "the file holds blank lines only", "export it again")

    def _batch(self, part: bytes) -> TableBatch:
        """Return the rows of whole lines."""
        if not self.columns and part.lstrip().startswith(b"["):
            raise TableReadError(
                self.source, "this is a JSON list, not JSON lines", "write one object per line"
            )
        encoding = self.text.settle(part)
        fast, lines, total = _sort_out(part, encoding, self.limits)
        quick = self._parse(fast)
        if quick is None:
            fast, (lines, total) = _Plain(), _numbered(part)
        rejects: list[Reject] = []
        slow: list[tuple[int, Row]] = []
        for number, line in lines:
            try:
                slow.append((number, self._known(read_row(line, encoding, self.limits))))
            except RowError as error:
                raw = self.text.original(line)
                shown = error.column.encode("utf-8", "backslashreplace").decode()
                rejects.append(Reject(number + self.rows, raw, error.rule, error.expected, shown))
        if not self.columns and total:
            self._name_columns(fast, slow)
        frame, rows = self._frame(quick, fast, slow)
        table = reject_table(rejects, self.source, self.options.time)
        layout = TableLayout("jsonl", self.columns, self.text.name)
        batch = TableBatch(frame, rows + self.rows, table, total, layout)
        self.rows += total
        return batch

    def _known(self, row: Row) -> Row:
        """Return a row whose keys are columns, or raise; in the first block all are."""
        if self.columns and not row.keys() <= self.keys.keys():
            raise RowError(UNKNOWN_KEY, column=min(row.keys() - self.keys.keys()))
        return row

    def _name_columns(self, fast: _Plain, slow: Sequence[tuple[int, Row]]) -> None:
        """Take the keys of the first block as columns, in their order."""
        first_fast = int(fast.rows[0][0]) if fast.rows else -1
        before = (key for number, row in slow if number < first_fast for key in row)
        after = (key for number, row in slow if number > first_fast for key in row)
        self.keys = {key: i for i, key in enumerate(dict.fromkeys(chain(before, fast.keys, after)))}
        if len(self.keys) > self.limits.columns:
            raise TableReadError(
                self.source,
                f"it has {len(self.keys):,} keys, more than the {self.limits.columns:,} granted",
                "write values that vary as values, not as keys, or raise the limit 'columns'",
            )
        self.columns = unique_names(self.keys, len(self.keys)) or ("column_1",)

    def _parse(self, fast: _Plain) -> pl.DataFrame | None:
        """Return plain lines by Polars' reader; None when it sees them otherwise."""
        if not fast.rows:
            return pl.DataFrame()
        if self.columns and not self.keys.keys() >= set(fast.keys):
            return None
        try:
            frame = pl.read_ndjson(fast.text, schema=dict.fromkeys(fast.keys, pl.String))
        except (pl.exceptions.PolarsError, ValueError):
            return None
        return frame if frame.height == sum(map(len, fast.rows)) else None

    def _frame(
        self, quick: pl.DataFrame | None, fast: _Plain, slow: Sequence[tuple[int, Row]]
    ) -> tuple[pl.DataFrame, Ints]:
        """Return all rows in their order, with their numbers within the block."""
        named = dict(zip(self.keys, self.columns, strict=False))
        schema = dict.fromkeys(self.columns, pl.String)
        parts, numbers = [], []
        if quick is not None and fast.rows:
            missing = [
                pl.lit(None, pl.String).alias(c) for k, c in named.items() if k not in fast.keys
            ]
            renamed = quick.select(pl.col(k).alias(named[k]) for k in fast.keys)
            parts.append(renamed.with_columns(missing).select(self.columns))
            numbers += fast.rows
        if slow:
            data = {column: [row.get(key) for _, row in slow] for key, column in named.items()}
            if not data:
                data = {self.columns[0]: [None] * len(slow)}
            parts.append(pl.DataFrame(data, schema=schema))
            numbers.append(np.array([number for number, _ in slow], np.int64))
        if not parts:
            return pl.DataFrame(schema=schema), np.empty(0, np.int64)
        rows = np.concatenate(numbers)
        frame = pl.concat(parts)
        if len(parts) == 2:
            order = np.argsort(rows, kind="stable")
            frame, rows = frame[order], rows[order]
        return frame, rows


def _numbered(part: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return the lines that are not blank, with their numbers."""
    lines = [line.removesuffix(b"\r") for line in part.split(b"\n")]
    filled = [line for line in lines if line.strip(b" \t")]
    return list(enumerate(filled)), len(filled)


def _sort_out(
    part: bytes, encoding: str, limits: ReadLimits
) -> tuple[_Plain, list[tuple[int, bytes]], int]:
    """Return the lines for the quick reader, the others with their numbers, and how many in all."""
    keys = _plain_keys(part[: part.find(b"\n") + 1 or len(part)].strip(), limits)
    if not keys or len(part) > limits.cell_bytes:
        return _Plain(), *_numbered(part)
    pairs = b", ?".join(re.escape(json.dumps(k).encode()) + b": ?" + VALUE for k in keys)
    run = re.compile(rb"(?:\{" + pairs + rb"\}\r?\n)*+")
    part = part if part.endswith(b"\n") else part + b"\n"
    at, number = 0, 0
    fast, others = _Plain(keys), []
    spans = []
    while at < len(part):
        match = run.match(part, at)
        end = match.end() if match else at
        if end > at:
            spans.append(part[at:end])
            count = part.count(b"\n", at, end)
            fast.rows.append(np.arange(number, number + count))
            number, at = number + count, end
            continue
        end = part.index(b"\n", at)
        line = part[at:end].removesuffix(b"\r")
        if line.strip(b" \t"):
            others.append((number, line))
            number += 1
        at = end + 1
    fast.text = b"".join(spans)
    try:
        if encoding == "cp1252":
            fast.text = fast.text.decode("cp1252").encode()
        elif not fast.text.isascii():
            fast.text.decode()
    except UnicodeDecodeError:
        return _Plain(), *_numbered(part)
    return fast, others, number


def _plain_keys(line: bytes, limits: ReadLimits) -> tuple[str, ...]:
    """Return the keys of an object of plain values; none if it is something else."""
    try:
        row = read_row(line, "utf-8", limits)
    except RowError:
        return ()
    keys = tuple(row)
    plain = all(
        key and key.isascii() and key.isprintable() and not set(key) & set('.\\"') for key in keys
    )
    return keys if plain and len(keys) <= PLAIN_KEYS else ()
