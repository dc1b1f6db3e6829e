"""Tables from and to files: read with clear errors, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.cleaning.quarantine import QUARANTINE_SCHEMA

MAX_TABLE_BYTES = 16 * 2**30
"""Tables that would take more memory than this are refused before they are parsed."""

CSV_GROWTH = 2
"""A parsed CSV takes at most about this many times its size in the file."""


class InputFileError(ValueError):
    """A file that cannot be read as a table; the message says what, where and how to mend it."""


class MissingFileError(InputFileError):
    """There is no such file."""


class EmptyFileError(InputFileError):
    """The file holds no rows."""


class CorruptFileError(InputFileError):
    """The content is not what the suffix promises."""


class UnknownFormatError(InputFileError):
    """The suffix names no format that is read here."""


class TableTooLargeError(InputFileError):
    """The table would not fit the memory granted to it."""


class DiskFullError(OSError):
    """No space is left where a file was to be written; nothing was left behind."""


def read_table(
    path: Path, *, text_columns: Sequence[str] = (), max_bytes: int = MAX_TABLE_BYTES
) -> pa.Table:
    """Read a ``.parquet`` or ``.csv`` file.

    CSV: UTF-8, a header line, comma, semicolon or tab between fields, ISO 8601 times; empty
    fields, ``NA``, ``NaN`` and ``null`` are missing.

    Args:
        path: The file.
        text_columns: CSV columns to keep as text, as ids should be (``007`` stays ``007``).
        max_bytes: Refuse tables that would take more memory.

    Raises:
        InputFileError: One of its subclasses, naming file, trouble and remedy.
    """
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path, max_bytes)
    elif suffix == ".csv":
        table = _read_csv(path, text_columns, max_bytes)
    else:
        raise UnknownFormatError(
            f"{path}: files ending in {suffix or 'nothing'!r} are not read; "
            "convert it to .parquet or .csv"
        )
    if table.num_rows == 0:
        raise EmptyFileError(f"{path}: has columns but no rows; export it again")
    return table


def read_fields(path: Path, rows: Sequence[int], columns: Sequence[str]) -> pa.Table | None:
    """Return chosen rows of a CSV file as the text that stands in it; None for other formats.

    Args:
        path: The file, readable by `read_table`.
        rows: Row numbers, from 0 after the header.
        columns: Columns of the file.
    """
    if path.suffix.lower() != ".csv":
        return None
    from pyarrow import csv

    from tasks.arrow_csv import read_csv

    table = read_csv(
        path,
        **_csv_layout(path),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=False, column_types=dict.fromkeys(columns, pa.string())
        ),
    )
    return table.take(pa.array(rows, pa.int64()))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal.

    Raises:
        MissingFileError: When there is no such file.
    """
    require_file(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that replaces ``path`` when all went well.

    The content is on the disk before the name is; on any exception, Ctrl-C included, the
    temporary file goes and ``path`` is as it was.

    Raises:
        DiskFullError: When no space is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                error.errno,
                "no space left on the disk; nothing was changed: free some space and run it again",
                str(path),
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_parquet_stream(path: Path, schema: pa.Schema, batches: Iterable[Any]) -> int:
    """Write record batches (or tables) to one Parquet file in bounded memory.

    Args:
        path: The file to write.
        schema: Schema of every batch.
        batches: ``pyarrow.RecordBatch`` or ``pyarrow.Table`` objects.

    Returns:
        Rows written.
    """
    from pyarrow import parquet

    rows = 0
    with (
        atomic_path(path) as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write(batch)
            rows += batch.num_rows
    return rows


def write_table(table: pa.Table, path: Path) -> Path:
    """Write a table as ``.parquet`` or ``.csv``, by suffix, whole or not at all.

    Raises:
        UnknownFormatError: On another suffix.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        write_parquet_stream(path, table.schema, [table])
    elif suffix == ".csv":
        from pyarrow import csv

        with atomic_path(path) as temporary:
            csv.write_csv(table, temporary)
    else:
        raise UnknownFormatError(f"{path}: name the file .parquet or .csv")
    return path


def write_quarantine(table: pa.Table, folder: Path) -> Path | None:
    """Add a part to a quarantine folder: ``YYYY-MM-DD/part-<digest>.parquet``.

    Call it before writing the clean rows. The name comes from what was refused and why, so a
    run that is repeated on the same day replaces its own part instead of doubling it.

    Args:
        table: Records of ``QUARANTINE_SCHEMA``.
        folder: The quarantine folder; made if absent.

    Returns:
        The part, or ``None`` when there was nothing to write.

    Raises:
        ValueError: When the table is no quarantine table.
    """
    if not table.schema.equals(QUARANTINE_SCHEMA):
        raise ValueError("a quarantine part needs QUARANTINE_SCHEMA; build it by quarantine_rows")
    if table.num_rows == 0:
        return None
    content = hashlib.sha256()
    for name in ("source", "row", "rule", "column", "payload"):
        content.update("\x1f".join(map(str, table.column(name).to_pylist())).encode())
    day = datetime.now(UTC).date().isoformat()
    return write_table(table, folder / day / f"part-{content.hexdigest()[:16]}.parquet")


def require_file(path: Path) -> None:
    """Make sure that there is something to read, before a step that takes longer.

    Raises:
        MissingFileError: When it is absent or a folder.
        EmptyFileError: When it has no bytes.
    """
    if path.is_dir():
        raise MissingFileError(f"{path} is a folder; name one .parquet or .csv file in it")
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{path}: no such file; check the path") from error
    if size == 0:
        raise EmptyFileError(f"{path}: the file is empty (0 bytes); export it again")


def _require_room(path: Path, need: int, max_bytes: int) -> None:
    if need > max_bytes:
        raise TableTooLargeError(
            f"{path}: would take about {need / 2**30:.1f} GiB of memory, more than the "
            f"{max_bytes / 2**30:.1f} GiB granted; split the file by time"
        )


def _read_parquet(path: Path, max_bytes: int) -> pa.Table:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            meta = file.metadata
            groups = (meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            _require_room(path, sum(groups), max_bytes)
            return file.read()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise CorruptFileError(
            f"{path}: no readable Parquet ({_first_line(error)}); copy or export it again"
        ) from error


def _read_csv(path: Path, text_columns: Sequence[str], max_bytes: int) -> pa.Table:
    from pyarrow import csv

    from tasks.arrow_csv import read_csv

    _require_room(path, path.stat().st_size * CSV_GROWTH, max_bytes)
    try:
        table = read_csv(
            path,
            **_csv_layout(path),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True,
                column_types=dict.fromkeys(text_columns, pa.string()),
            ),
        )
    except pa.ArrowException as error:
        raise CorruptFileError(
            f"{path}: no readable CSV ({_first_line(error)}); mend that line or export it again "
            "as UTF-8"
        ) from error
    binary = [f.name for f in table.schema if pa.types.is_binary(f.type)]
    if binary or any("\x00" in name for name in table.column_names):
        where = f"column {binary[0]!r}" if binary else "the header"
        raise CorruptFileError(f"{path}: {where} is not UTF-8 text; export it again as UTF-8")
    return table


def _csv_layout(path: Path) -> dict[str, Any]:
    """Return how a CSV file is cut into rows and fields."""
    from pyarrow import csv

    return {
        "read_options": csv.ReadOptions(block_size=8 * 2**20),
        "parse_options": csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
    }


def _delimiter(path: Path) -> str:
    """Return the separator that the header line uses most."""
    with path.open("rb") as handle:
        header = handle.readline(1 << 16).decode("utf-8", "replace")
    return max(",;\t", key=header.count)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _sync(path: Path) -> None:
    """Force a file or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
