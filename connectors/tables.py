"""A stranger's table from a file: CSV and the like, JSON lines, Parquet, packed by gzip or zstd.

`read_batches` streams in bounded memory; `read_whole` keeps a table that fits. Neither guesses
types: every cell is the text that stands in the file. Rows that cannot be read become quarantine
records with their original bytes, and a file that cannot be read as a whole is a `TableReadError`.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from tasks.cleaning.ingest.columnar import read_columnar
from tasks.cleaning.ingest.delimited import read_delimited
from tasks.cleaning.ingest.errors import ExpansionError, TableReadError
from tasks.cleaning.ingest.jsonl import read_jsonl
from tasks.cleaning.ingest.options import (
    MIB,
    Format,
    ReadLimits,
    ReadOptions,
    TableBatch,
    TableLayout,
    no_rows,
)

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
PACKED = {".gz", ".gzip", ".zst", ".zstd"}
FORMATS: dict[str, Format] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".txt": "delimited",
    ".tab": "delimited",
    ".psv": "delimited",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
STEP = MIB
PARQUET_ROWS = 1 << 16


def read_batches(
    path: Path, options: ReadOptions | None = None, *, kind: Format | None = None
) -> Iterator[TableBatch]:
    """Yield a file's rows as texts, and those that cannot be read as quarantine records.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, ``.ndjson``, ``.json``, ``.parquet``; all
            but Parquet also packed (``.gz``, ``.zst``, told by their first bytes).
        options: What is known of the file, and limits; the rest is detected.
        kind: The format, where the suffix does not tell.

    Yields:
        At least one batch; rows in = rows read + rows quarantined, in every one.

    Raises:
        TableReadError: When the file as a whole cannot be read; batches before the place of
            trouble may have come already, so publish nothing before the last one.
    """
    options = options or ReadOptions()
    try:
        handle = _open(path)
    except TableReadError:
        raise
    except (OSError, ValueError) as error:
        raise TableReadError(str(path), _reason(error), "check path and permissions") from error
    with handle:
        try:
            yield from _read(handle, path, options, kind)
        except TableReadError:
            raise
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise TableReadError(
                str(path), _reason(error), "copy or export the file again"
            ) from error


def read_whole(
    path: Path, options: ReadOptions | None = None, *, kind: Format | None = None
) -> TableBatch:
    """Return a whole file as one batch.

    Args:
        path: As for `read_batches`.
        options: As for `read_batches`; ``limits.table_bytes`` bounds what is kept.
        kind: As for `read_batches`.

    Raises:
        TableReadError: Also when the table takes more memory than granted.
    """
    options = options or ReadOptions()
    batches: list[TableBatch] = []
    size = 0
    for batch in read_batches(path, options, kind=kind):
        size += int(batch.frame.estimated_size()) + batch.quarantine.nbytes
        if size > options.limits.table_bytes:
            raise TableReadError(
                str(path),
                f"its texts take more than {options.limits.table_bytes / 2**30:.1f} GiB",
                "stream it (penstock clean run --stream), or raise the limit 'table_bytes'",
            )
        batches.append(batch)
    return TableBatch(
        pl.concat([batch.frame for batch in batches]),
        np.concatenate([batch.rows for batch in batches]),
        pa.concat_tables([batch.quarantine for batch in batches]),
        sum(batch.rows_in for batch in batches),
        batches[-1].layout,
    )


def _open(path: Path) -> BinaryIO:
    """Open a regular file; pipes, devices and folders are refused before they can block."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise TableReadError(str(path), "this is a folder", "name one file in it")
    if not stat.S_ISREG(mode):
        raise TableReadError(str(path), "this is no regular file", "copy its content to a file")
    return path.open("rb")


def _read(
    handle: BinaryIO, path: Path, options: ReadOptions, kind: Format | None
) -> Iterator[TableBatch]:
    head = handle.read(8)
    handle.seek(0)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = head.startswith((GZIP, ZSTD))
    if suffixes and suffixes[-1] in PACKED:
        if head and not packed:
            raise TableReadError(
                str(path),
                "its first bytes are neither gzip's nor zstd's",
                "copy it again, or rename it",
            )
        suffixes.pop()
    told = kind or FORMATS.get(suffixes[-1] if suffixes else "")
    if told is None:
        told = "parquet" if head.startswith(PARQUET) else "delimited"
    if told == "parquet":
        if packed:
            raise TableReadError(str(path), "a packed Parquet file", "unpack it first")
        yield from _read_parquet(handle, path, options)
        return
    blocks = _unpacked(handle, path, head, options.limits) if packed else _blocks(handle, options)
    read = read_jsonl if told == "jsonl" else read_delimited
    yield from read(blocks, str(path), options)


def _blocks(handle: BinaryIO, options: ReadOptions) -> Iterator[bytes]:
    while block := handle.read(options.limits.block_bytes):
        yield block


def _unpacked(handle: BinaryIO, path: Path, head: bytes, limits: ReadLimits) -> Iterator[bytes]:
    """Yield the content of a packed file, a MiB at a time; refuses bombs as they unfold."""
    produced = 0
    for block in (_gunzip if head.startswith(GZIP) else _unzstd)(handle, path):
        produced += len(block)
        taken = max(handle.tell(), 1)
        if produced > limits.expanded_bytes:
            raise ExpansionError(
                str(path),
                f"it unfolds to more than the {limits.expanded_bytes / 2**30:.1f} GiB granted",
                "split it, or raise the limit 'expanded_bytes'",
            )
        if produced > limits.ratio_from and produced > limits.ratio * taken:
            raise ExpansionError(
                str(path),
                f"it unfolds to more than {limits.ratio:g} times its size, as bombs do",
                "check where it comes from; if it is right, raise the limit 'ratio'",
            )
        yield block


def _gunzip(handle: BinaryIO, path: Path) -> Iterator[bytes]:
    engine, data = zlib.decompressobj(wbits=31), b""
    try:
        while True:
            data = data or handle.read(STEP)
            if not data:
                break
            if engine.eof:  # another member, or the zeros that pad a tape
                data = data.lstrip(b"\0")
                engine = zlib.decompressobj(wbits=31) if data else engine
                continue
            block = engine.decompress(data, STEP)
            data = engine.unused_data if engine.eof else engine.unconsumed_tail
            if block:
                yield block
        while not engine.eof and (block := engine.decompress(b"", STEP)):
            yield block
    except zlib.error as error:
        raise _damaged(path, "gzip", error) from error
    if not engine.eof:
        raise TableReadError(str(path), "its gzip data end in the middle", "copy it again, whole")


def _unzstd(handle: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd") as stream:
            while block := stream.read(STEP):
                yield block
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, "zstd", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> TableReadError:
    return TableReadError(
        str(path), f"its {kind} data are damaged ({_reason(error)})", "copy it again"
    )


def _read_parquet(handle: BinaryIO, path: Path, options: ReadOptions) -> Iterator[TableBatch]:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(handle) as probe:
            meta, schema = probe.metadata, probe.schema_arrow
        _require_modest(meta, path, options.limits)
        handle = _open(path)
        with handle, parquet.ParquetFile(handle, read_dictionary=_repeated(meta, schema)) as file:
            if meta.num_rows == 0:
                names = file.schema_arrow.empty_table().flatten().column_names
                yield no_rows(TableLayout("parquet", tuple(names), ""))
                return
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            rows = options.limits.block_bytes * meta.num_rows // max(size, 1)
            batches = file.iter_batches(batch_size=min(max(rows, 1), PARQUET_ROWS))
            tables = (pa.Table.from_batches([_valid(batch)]) for batch in batches)
            yield from read_columnar(tables, str(path), options)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableReadError(
            str(path), f"no readable Parquet ({_reason(error)})", "copy or export it again"
        ) from error


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose dictionaries hold what their indices ask for."""
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column.indices.validate(full=True)
            top = pa.compute.max(column.indices).as_py()
            if top is not None and top >= len(column.dictionary):
                raise pa.ArrowInvalid("a dictionary lacks values that are asked for")
        else:
            column.validate()
    return batch


def _require_modest(meta: pa.lib.Any, path: Path, limits: ReadLimits) -> None:
    """Refuse what the footer says to be more than is granted."""
    if meta.num_columns > limits.columns or meta.num_columns == 0:
        raise TableReadError(
            str(path),
            f"it has {meta.num_columns:,} columns, not 1 to {limits.columns:,}",
            "choose some, or raise the limit 'columns'",
        )
    size = path.stat().st_size
    unfolded = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    folded_rows = meta.num_rows > limits.ratio_from and meta.num_rows > 8 * limits.ratio * size
    if (
        unfolded > limits.expanded_bytes
        or folded_rows
        or (unfolded > limits.ratio_from and unfolded > limits.ratio * size)
    ):
        raise ExpansionError(
            str(path),
            f"{size:,} bytes unfold to {meta.num_rows:,} rows of {unfolded:,} bytes, as bombs do",
            "check where it comes from; if it is right, raise 'ratio' or 'expanded_bytes'",
        )


def _repeated(meta: pa.lib.Any, schema: pa.Schema) -> list[str]:
    """Return text columns that stand in the file as dictionaries: read as such, they stay small."""
    if not meta.num_row_groups:
        return []
    group = meta.row_group(0)
    names = []
    for i in range(meta.num_columns):
        chunk = group.column(i)
        path = chunk.path_in_schema
        index = schema.get_field_index(path)
        if index >= 0 and any("DICTIONARY" in e for e in chunk.encodings):
            kind = schema.field(index).type
            if pa.types.is_string(kind) or pa.types.is_binary(kind):
                names.append(path)
    return names


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
