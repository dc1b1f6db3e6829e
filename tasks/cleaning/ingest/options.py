"""Limits and wishes of a reader, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tasks.cleaning.quarantine import empty_quarantine

Encoding = Literal["utf-8", "cp1252", "utf-16-le", "utf-16-be"]
Format = Literal["delimited", "jsonl", "parquet"]
MIB = 2**20


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What a file may ask of the machine.

    Attributes:
        block_bytes: Bytes read at a time; a batch holds the rows of about one block.
        cell_bytes: Largest cell; rows with a larger one are quarantined.
        row_bytes: Largest row; a file with a larger one is refused.
        columns: Most columns.
        depth: Levels of nested JSON or Parquet that are flattened to ``a.b.c``.
        expanded_bytes: Most bytes that a compressed file may unfold to.
        ratio: Most bytes out of one byte of a compressed file, counted from ``ratio_from`` on.
        ratio_from: Bytes unfolded before the ratio counts: small files pack well by nature.
        table_bytes: Most bytes of text that reading a whole file keeps in memory.
    """

    block_bytes: int = 8 * MIB
    cell_bytes: int = 10 * MIB
    row_bytes: int = 32 * MIB
    columns: int = 10_000
    depth: int = 3
    expanded_bytes: int = 64 * 2**30
    ratio: float = 200.0
    ratio_from: int = 16 * MIB
    table_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        """Reject limits that cannot be kept together."""
        if min(self.block_bytes, self.cell_bytes, self.columns, self.depth) < 1:
            raise ValueError("block_bytes, cell_bytes, columns and depth must be at least 1")
        if self.row_bytes < self.cell_bytes:
            raise ValueError(
                f"row_bytes {self.row_bytes} must not be less than cell_bytes {self.cell_bytes}"
            )


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What is known about a file beforehand; everything left out is detected.

    Attributes:
        encoding: How its bytes spell text.
        delimiter: The one ASCII character between cells.
        quote: The one ASCII character around cells; ``""`` for none.
        header: Whether the first row names the columns.
        limits: What the file may ask of the machine.
        time: The time of all quarantine records; now if left out.
    """

    encoding: Encoding | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    limits: ReadLimits = field(default_factory=ReadLimits)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        """Reject characters that cannot stand between or around cells."""
        for name, value in (("delimiter", self.delimiter), ("quote", self.quote or None)):
            if value is not None and value != "\t" and (len(value) != 1 or not "!" <= value <= "~"):
                raise ValueError(f"{name} {value!r} must be one ASCII character")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How a file was read.

    Attributes:
        format: Kind of file.
        columns: Names as they stand in the frames: unique, never empty.
        encoding: How its bytes were read; ``""`` for Parquet.
        delimiter: Between cells; ``""`` where there is none.
        quote: Around cells; ``""`` where there is none.
        header: Whether the first row named the columns.
    """

    format: Format
    columns: tuple[str, ...]
    encoding: str = "utf-8"
    delimiter: str = ""
    quote: str = ""
    header: bool = False


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Some rows of a file, in its order.

    Attributes:
        frame: The rows that could be read, all columns texts (null: JSON or Parquet had none).
        rows: Their numbers in the file [frame.height], from 0 after the header; rows above a header
            count -1, -2, ... upwards from it.
        quarantine: One record for every row that could not be read.
        rows_in: Rows met: ``frame.height + quarantine.num_rows``, always.
        layout: How the file was read.
    """

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    quarantine: pa.Table
    rows_in: int
    layout: TableLayout

    def __post_init__(self) -> None:
        """Make sure that no row is lost or doubled."""
        if not self.frame.height + self.quarantine.num_rows == self.rows_in or (
            len(self.rows) != self.frame.height
        ):
            raise AssertionError(
                f"{self.rows_in} rows in, but {self.frame.height} read ({len(self.rows)} numbered) "
                f"and {self.quarantine.num_rows} quarantined"
            )


def no_rows(layout: TableLayout) -> TableBatch:
    """Return a batch without rows, so that the columns of an empty table are known."""
    frame = pl.DataFrame(schema=dict.fromkeys(layout.columns, pl.String))
    return TableBatch(frame, np.empty(0, np.int64), empty_quarantine(), 0, layout)
