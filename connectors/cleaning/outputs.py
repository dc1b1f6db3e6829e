"""Clean rows and quarantine published together or not at all.

A folder of results holds one ``manifest.json`` and one folder per generation. A generation is
written under another name first: each batch's quarantine before its clean rows, then everything to
the disk, then the folder gets its name. The manifest, replaced in one step, makes it the
published one: readers go by the manifest and see old or new, never half. What a killed run left
behind is taken away by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from connectors.files import DiskFullError, atomic_path
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA

MANIFEST, LOCK = "manifest.json", ".lock"
GENERATION, UNFINISHED = "generation-", ".unfinished-"
VERSION = 1
ROW_GROUP = 1 << 17
OutputFormat = Literal["parquet", "csv"]


class OutputError(ValueError):
    """Results that cannot be published or read; says what, where and how to mend it."""


class OutputBusyError(OutputError):
    """Another process writes to the same folder."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a manifest says of the published results.

    Attributes:
        folder: The folder of results.
        generation: Name of the folder in it that holds the files.
        clean: File name of the clean rows.
        quarantine: File name of the quarantine records.
        rows_in: Rows that the run met.
        rows_clean: Rows of the clean file.
        rows_quarantined: Rows that were set aside; a row may have several records.
        records: Quarantine records.
        digests: File name -> SHA-256.
        columns: Columns of the clean rows.
        source: What was read, as the caller named it.
    """

    folder: Path
    generation: str
    clean: str
    quarantine: str
    rows_in: int
    rows_clean: int
    rows_quarantined: int
    records: int
    digests: dict[str, str]
    columns: tuple[str, ...]
    source: str

    @property
    def clean_path(self) -> Path:
        """The file of clean rows."""
        return self.folder / self.generation / self.clean

    def attached(self, name: str) -> Path:
        """Return the path of a file that was published with the others.

        Raises:
            OutputError: When the run published no such file.
        """
        if name not in self.digests:
            raise OutputError(f"{self.folder}: the run published no {name}; run it again")
        return self.folder / self.generation / name

    @property
    def quarantine_path(self) -> Path:
        """The file of quarantine records."""
        return self.folder / self.generation / self.quarantine


class OutputWriter:
    """Takes batches of one run; `outputs` makes it and publishes what it took."""

    def __init__(self, folder: Path, source: str, kind: OutputFormat) -> None:
        self.rows_in = 0
        self.rows_clean = 0
        self.rows_quarantined = 0
        self.records = 0
        self._source = source
        self._clean: _ParquetSink | _CsvSink | None = None
        self._columns: tuple[str, ...] | None = None
        self._folder = folder
        self._kind = kind
        self._attached: list[str] = []
        self._quarantine = _ParquetSink(folder / "quarantine.parquet", QUARANTINE_SCHEMA)

    def write(self, clean: pl.DataFrame, quarantine: pa.Table, rows_in: int) -> None:
        """Add a batch; its quarantine is written first.

        Args:
            clean: Clean rows, repaired ones included; all batches have the same columns.
            quarantine: Records of ``QUARANTINE_SCHEMA``; all records of one row in one batch.
            rows_in: Rows that the batch had before.

        Raises:
            OutputError: When rows in are not clean plus quarantined rows, or columns differ.
        """
        if not quarantine.schema.equals(QUARANTINE_SCHEMA):
            raise OutputError("quarantine records need QUARANTINE_SCHEMA; build them by its module")
        places = quarantine.select(["source", "row"])
        aside = places.group_by(["source", "row"]).aggregate([]).num_rows
        if clean.height + aside != rows_in:
            raise OutputError(
                f"{self._source}: {rows_in} rows in, but {clean.height} clean and {aside} "
                "quarantined; every row must be in exactly one of them"
            )
        columns = tuple(clean.columns)
        if self._columns is None:
            self._columns = columns
        if columns != self._columns:
            raise OutputError(
                f"{self._source}: a batch has other columns than the first: {columns} instead of "
                f"{self._columns}"
            )
        self._quarantine.write(quarantine)
        if self._clean is None:
            name = self._folder / f"clean.{self._kind}"
            self._clean = (
                _ParquetSink(name, clean.to_arrow().schema, _repetitive(clean))
                if self._kind == "parquet"
                else _CsvSink(name)
            )
        self._clean.write(clean.to_arrow() if self._kind == "parquet" else clean)
        self.rows_in += rows_in
        self.rows_clean += clean.height
        self.rows_quarantined += aside
        self.records += quarantine.num_rows

    def attach(self, name: str) -> Path:
        """Return a path for one more file that is published with the others.

        Args:
            name: File name without folders; written by the caller before the block ends.
        """
        if Path(name).name != name or name in self._taken():
            raise OutputError(f"{name!r} is no name for one more file beside the results")
        self._attached.append(name)
        return self._folder / name

    def _taken(self) -> list[str]:
        return ["quarantine.parquet", f"clean.{self._kind}", *self._attached]

    def finish(self) -> dict[str, Any]:
        """Bring both files to the disk, quarantine first; returns what a manifest says of them."""
        self._quarantine.close()
        if self._clean is None:
            raise OutputError(
                f"{self._source}: nothing was written; write at least one batch, be it without rows"
            )
        self._clean.close()
        for name in self._attached:
            _sync(self._folder / name)
        names = self._taken()
        return {
            "clean": names[1],
            "quarantine": names[0],
            "rows_in": self.rows_in,
            "rows_clean": self.rows_clean,
            "rows_quarantined": self.rows_quarantined,
            "records": self.records,
            "digests": {name: _digest(self._folder / name) for name in names},
            "columns": list(self._columns or ()),
            "source": self._source,
        }

    def abandon(self) -> None:
        """Close what is open without care for its content."""
        for sink in (self._quarantine, self._clean):
            if sink is not None:
                sink.abandon()


@contextmanager
def outputs(
    folder: Path, source: str, kind: OutputFormat = "parquet", *, after: str = ""
) -> Iterator[OutputWriter]:
    """Yield a writer; when the block ends well, what it took replaces the published results.

    On any exception, and after a kill at any moment, the results published before stay as they
    were. A repeated run gives the same content, and the same generation name when the records carry
    the same time. The generation before stays until the next run begins.

    Args:
        folder: The folder of results, of this table only; made if absent.
        source: What is read, for the manifest.
        kind: Format of the clean rows; quarantine is Parquet, since it holds bytes.
        after: The generation that these results were made from; "" where they are made anew.

    Raises:
        OutputBusyError: When another process writes there, or has since ``after``.
        OutputError: When rows were lost or doubled.
        DiskFullError: When no space is left; nothing was changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _sweep(folder)
        before = published(folder) if after else None
        if after and (before is None or before.generation != after):
            raise OutputBusyError(f"{folder}: another process has changed the results; try again")
        staging = folder / f"{UNFINISHED}{os.getpid()}"
        staging.mkdir()
        writer = OutputWriter(staging, source, kind)
        try:
            yield writer
            _publish(folder, staging, writer.finish())
        except OSError as error:
            writer.abandon()
            shutil.rmtree(staging, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    error.errno,
                    "no space left on the disk; the results are as they were: free some space and "
                    "run it again",
                    str(folder),
                ) from error
            raise
        except BaseException:
            writer.abandon()
            shutil.rmtree(staging, ignore_errors=True)
            raise


def published(folder: Path, *, check: bool = False) -> Published | None:
    """Return the published results; None when there are none yet.

    Args:
        folder: The folder of results.
        check: Compare the files with their digests.

    Raises:
        OutputError: When the manifest or a file is damaged.
    """
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise OutputError(f"{folder / MANIFEST}: no valid JSON ({error}); run it again") from error
    if not isinstance(said, dict) or said.pop("version", None) != VERSION:
        raise OutputError(f"{folder / MANIFEST}: not of version {VERSION}; run it again")
    try:
        found = Published(folder=folder, **{**said, "columns": tuple(said["columns"])})
    except (KeyError, TypeError) as error:
        raise OutputError(f"{folder / MANIFEST}: {error}; run it again") from error
    for path in (folder / found.generation / name for name in found.digests):
        if not path.is_file():
            raise OutputError(f"{path}: the manifest names it, but it is gone; run it again")
        if check and _digest(path) != found.digests[path.name]:
            raise OutputError(f"{path}: its content was changed since; run it again")
    return found


def _publish(folder: Path, staging: Path, said: dict[str, Any]) -> None:
    content = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    name = f"{GENERATION}{content[:16]}"
    _sync(staging)
    target = folder / name
    before = _intact(folder)
    if before is not None and before.generation == name:
        shutil.rmtree(staging)  # the same content is published already
        return
    if target.exists():
        shutil.rmtree(target)  # of a run killed before its manifest, or damaged since
    staging.rename(target)
    _sync(folder)
    found = Published(folder=folder, generation=name, **{**said, "columns": tuple(said["columns"])})
    body = {"version": VERSION, **asdict(found)}
    del body["folder"]
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _intact(folder: Path) -> Published | None:
    """Return the published results if nothing is wrong with them."""
    try:
        return published(folder, check=True)
    except OutputError:
        return None


def _sweep(folder: Path) -> None:
    """Take away what killed runs left, and the generation before the published one.

    It stays until the next run begins, so that whoever has just read the old manifest finds the
    files. Beside a damaged manifest no generation goes: a person may still want them.
    """
    try:
        found = published(folder)
    except OutputError:
        found, damaged = None, True
    else:
        damaged = False
    for path in folder.iterdir():
        left = path.name.startswith(UNFINISHED) or (
            path.name.startswith(f".{MANIFEST}.") and path.name.endswith(".tmp")
        )
        unnamed = path.name.startswith(GENERATION) and not (
            damaged or (found is not None and path.name == found.generation)
        )
        if left or unnamed:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock ends with the process, however that ends."""
    with (folder / LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusyError(
                f"{folder}: another process writes here; wait for it, or name another folder"
            ) from error
        yield


def _repetitive(frame: pl.DataFrame) -> list[str]:
    """Return the columns whose values repeat: a dictionary of the others would be thrown away."""
    return [name for name in frame.columns if 2 * frame[name].n_unique() <= frame.height]


class _ParquetSink:
    def __init__(self, path: Path, schema: pa.Schema, repetitive: list[str] | None = None) -> None:
        from pyarrow import parquet

        self._path = path
        self._writer = parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=True if repetitive is None else repetitive,
        )

    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            self._writer.write_table(table, row_group_size=ROW_GROUP)

    def close(self) -> None:
        self._writer.close()
        _sync(self._path)

    def abandon(self) -> None:
        try:
            self._writer.close()
        except (OSError, pa.ArrowException):
            return


class _CsvSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = path.open("wb")
        self._begun = False

    def write(self, frame: pl.DataFrame) -> None:
        frame.write_csv(self._handle, include_header=not self._begun)
        self._begun = True

    def close(self) -> None:
        self._handle.close()
        _sync(self._path)

    def abandon(self) -> None:
        self._handle.close()


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
