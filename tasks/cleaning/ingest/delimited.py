"""Delimited text (CSV, TSV and the like) read in batches of bounded size.

Blocks without problems go to Arrow's reader as they are; all others through `records.scan`, whose
good rows go to the same reader. What a row is does not depend on which way it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from tasks.arrow_csv import read_csv
from tasks.cleaning.ingest.dialect import SAMPLE as SNIFFED
from tasks.cleaning.ingest.dialect import Sniffed, sniff
from tasks.cleaning.ingest.options import MIB, ReadOptions, TableBatch, TableLayout, no_rows
from tasks.cleaning.ingest.records import last_line_end, parse_record, scan, tidy
from tasks.cleaning.ingest.rejects import TOO_FEW_CELLS, Reject, reject_table
from tasks.cleaning.ingest.text_blocks import TextBlocks

ARROW_BLOCK = MIB
PIECE = MIB
"""Blocks with problems are cut into pieces of so many bytes."""
MARK = b"\xef\xbb\xbf"


def read_delimited(
    blocks: Iterable[bytes], source: str, options: ReadOptions | None = None
) -> Iterator[TableBatch]:
    """Yield the rows of delimited text as texts, and those that cannot be read as records.

    Args:
        blocks: The file, unpacked, in pieces of any size.
        source: Its name, for messages and records.
        options: What is known of it; the rest is detected.

    Yields:
        At least one batch, about one per block.

    Raises:
        TableReadError: When the file as a whole cannot be read.
    """
    options = options or ReadOptions()
    yield from _Delimited(source, options).read(blocks)


class _Delimited:
    """One file being read."""

    def __init__(self, source: str, options: ReadOptions) -> None:
        self.source = source
        self.options = options
        self.limits = options.limits
        self.text = TextBlocks(source, options)
        self.sniffed: Sniffed | None = None
        self.rows = 0

    def read(self, blocks: Iterable[bytes]) -> Iterator[TableBatch]:
        """Yield the batches of the file."""
        buffer, any_batch = b"", False
        for block, final in self.text.read(blocks):
            buffer = buffer + block if buffer else block
            if self.sniffed is None:
                end = last_line_end(buffer, len(buffer))
                if not final and end < SNIFFED:
                    self.text.require_progress(len(buffer) - end, self.rows)
                    continue
                above, buffer = self._begin(buffer, final=final)
                if above is not None:
                    any_batch = True
                    yield above
            at = 0
            for batch, used in self._take(buffer, final=final):
                at += used
                if batch is not None and batch.rows_in:
                    any_batch = True
                    yield batch
            buffer = buffer[at:]
            self.text.require_progress(len(buffer), self.rows)
        if not any_batch:
            yield no_rows(self.layout)

    @property
    def layout(self) -> TableLayout:
        """How the file is written, as far as it was read."""
        assert self.sniffed  # noqa: S101 - set by the first block
        dialect = self.sniffed.dialect
        return TableLayout(
            "delimited",
            self.sniffed.names,
            self.text.name,
            dialect.delimiter.decode(),
            dialect.quote.decode(),
            self.sniffed.header,
        )

    def _begin(self, buffer: bytes, *, final: bool) -> tuple[TableBatch | None, bytes]:
        """Find out how the table is written; returns the rows above it, and what comes after."""
        encoding = self.text.settle(buffer)
        sample = buffer if final else buffer[: last_line_end(buffer, len(buffer))]
        self.sniffed = found = sniff(sample, self.source, self.options, encoding)
        rest = buffer[found.data :]
        n = len(found.above)
        if not n:
            return None, rest
        expected = f"{len(found.names)} cells, as the table has columns; this stands above it"
        rejects = [
            Reject(i - n, self.text.original(raw), TOO_FEW_CELLS, expected)
            for i, raw in enumerate(found.above)
        ]
        table = reject_table(rejects, self.source, self.options.time)
        empty = no_rows(self.layout)
        return TableBatch(empty.frame, empty.rows, table, n, empty.layout), rest

    def _take(self, buffer: bytes, *, final: bool) -> Iterator[tuple[TableBatch | None, int]]:
        """Yield the rows that a buffer holds whole, and how many of its bytes they take.

        A buffer with problems is cut into pieces, so that only those with problems take long.
        """
        encoding = self.text.settle(buffer)
        if taken := self._quick(buffer, final=final):
            yield taken
            return
        at, calm = 0, len(buffer) > PIECE
        while at < len(buffer):
            piece, ends = buffer[at : at + PIECE], final and at + PIECE >= len(buffer)
            quick = self._quick(piece, final=ends) if calm else None
            if quick:
                yield quick
                at += quick[1]
                continue
            (batch, used), calm = self._slow(piece, encoding, final=ends)
            if not used and at + PIECE < len(buffer):
                (batch, used), calm = self._slow(buffer[at:], encoding, final=final)
            if not used:
                return
            yield batch, used
            at += used

    def _quick(self, text: bytes, *, final: bool) -> tuple[TableBatch, int] | None:
        """Return rows and bytes taken when Arrow's reader finds nothing wrong."""
        assert self.sniffed  # noqa: S101 - set before
        end, inside = tidy(text, self.sniffed.dialect, self.limits, final=final)
        frame = self._parse(text[:end], inside=inside) if end else None
        if frame is None:
            return None
        return self._batch(frame, np.arange(frame.height), [], frame.height), end

    def _slow(
        self, text: bytes, encoding: str, *, final: bool
    ) -> tuple[tuple[TableBatch | None, int], bool]:
        """Return rows and bytes taken, none when more is needed, and whether nothing was wrong."""
        assert self.sniffed  # noqa: S101 - set before
        width = len(self.sniffed.names)
        found = scan(
            text, self.sniffed.dialect, width, encoding=encoding, limits=self.limits, final=final
        )
        if not found.used:
            return (None, 0), False
        frame = self._parse(found.good, inside=found.inside, whole=True)
        if frame is None or frame.height != len(found.good_rows):
            frame = self._parse_slowly(found.good)
        batch = self._batch(frame, found.good_rows, found.rejects, found.rows)
        return (batch, found.used), not found.rejects

    def _batch(
        self, frame: pl.DataFrame, rows: NDArray[np.int64], rejects: list[Reject], rows_in: int
    ) -> TableBatch:
        first, self.rows = self.rows, self.rows + rows_in
        moved = [
            r._replace(row=r.row + first, payload=self.text.original(r.payload)) for r in rejects
        ]
        table = reject_table(moved, self.source, self.options.time)
        return TableBatch(frame, rows + first, table, rows_in, self.layout)

    def _parse(self, text: bytes, *, inside: bool, whole: bool = False) -> pl.DataFrame | None:
        """Return rows by Arrow's reader; None when it objects."""
        assert self.sniffed  # noqa: S101 - set before
        names, dialect = self.sniffed.names, self.sniffed.dialect
        if not text:
            return no_rows(self.layout).frame
        skip = 0
        if self.text.encoding == "cp1252":
            try:
                text = text.decode("cp1252").encode()
            except UnicodeDecodeError:
                return None
        if text.startswith(MARK):  # of a row, not of the file: Arrow would drop it
            text, skip = dialect.delimiter * (len(names) - 1) + b"\n" + text, 1
        try:
            table = read_csv(
                pa.BufferReader(text),
                read_options=csv.ReadOptions(
                    column_names=names,
                    skip_rows=skip,
                    block_size=len(text) + 1 if whole else ARROW_BLOCK,
                ),
                parse_options=csv.ParseOptions(
                    delimiter=dialect.delimiter.decode(),
                    quote_char=dialect.quote.decode() or False,
                    newlines_in_values=inside,
                    ignore_empty_lines=len(names) > 1,
                ),
                convert_options=csv.ConvertOptions(
                    strings_can_be_null=False, column_types=dict.fromkeys(names, pa.string())
                ),
            )
        except pa.ArrowException:
            return None
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tables become frames
        return frame

    def _parse_slowly(self, text: bytes) -> pl.DataFrame:
        """Return rows cell by cell, for what Arrow's reader reads otherwise than `scan`."""
        assert self.sniffed  # noqa: S101 - set before
        names, at, rows = self.sniffed.names, 0, []
        encoding = self.text.encoding or "utf-8"
        while at < len(text):
            record = parse_record(text, at, self.sniffed.dialect)
            at = record.end + (2 if text.startswith(b"\r\n", record.end) else 1)
            rows.append([cell.decode(encoding) for cell in record.cells])
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
