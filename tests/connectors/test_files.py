"""Files are read with clear errors and written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from connectors.files import (
    CorruptFileError,
    DiskFullError,
    EmptyFileError,
    InputFileError,
    MissingFileError,
    TableTooLargeError,
    UnknownFormatError,
    atomic_path,
    digest,
    read_table,
    write_parquet_stream,
    write_quarantine,
    write_table,
)
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows

TABLE = pa.table({"id": ["007", "8"], "amount": [1.5, 2.0]})


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".PARQUET"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = write_table(TABLE, tmp_path / "deep" / f"t{suffix}")
    assert read_table(path, text_columns=["id", "absent"]).equals(TABLE)
    assert [p.name for p in path.parent.iterdir()] == [f"t{suffix}"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_separators_gaps_and_late_text(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    lines = ["t,amount,who", *(["2018-04-01 10:00:00,1.5,7"] * 400_000), ",abc,NA"]
    path.write_text("\n".join(lines).replace(",", mark) + "\n", encoding="utf-8-sig")
    table = read_table(path)
    assert table.schema.types == [pa.timestamp("s"), pa.string(), pa.int64()]
    assert table.num_rows == 400_001
    assert table.slice(400_000).to_pylist() == [{"t": None, "amount": "abc", "who": None}]


def test_quoted_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"x\ny",1\n')
    assert read_table(path).to_pylist() == [{"a": "x\ny", "b": 1}]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.csv", None, MissingFileError, "no such file; check the path"),
        ("t.csv", b"", EmptyFileError, "0 bytes"),
        ("t.csv", b"a,b\n", EmptyFileError, "no rows"),
        ("t.csv", b"a,b\n1,2,3\n", CorruptFileError, "Expected 2 columns, got 3"),
        ("t.csv", b"a,b\n1,\xff\xfe\n", CorruptFileError, "'b' is not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), CorruptFileError, "UTF-8"),
        ("t.parquet", b"PAR1 but not really", CorruptFileError, "no readable Parquet"),
        ("t.parquet", b"x", CorruptFileError, "no readable Parquet"),
        ("t.xlsx", b"PK", UnknownFormatError, "convert it to .parquet or .csv"),
        ("t", b"PK", UnknownFormatError, "'nothing'"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, error: type[InputFileError], message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_parquet_is_corrupt(tmp_path: Path) -> None:
    path = write_table(pa.table({"a": np.arange(100_000)}), tmp_path / "t.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFileError):
        read_table(path)
    path.write_bytes(whole[:100] + bytes(len(whole) // 2) + whole[100 + len(whole) // 2 :])
    with pytest.raises(CorruptFileError):
        read_table(path)


def test_folders_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is a folder"):
        read_table(tmp_path)
    (tmp_path / "f").write_text("x")
    with pytest.raises(MissingFileError):
        read_table(tmp_path / "f" / "t.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_too_large_are_refused_before_parsing(tmp_path: Path, suffix: str) -> None:
    path = write_table(pa.table({"a": np.arange(10_000)}), tmp_path / f"t{suffix}")
    with pytest.raises(TableTooLargeError, match="split the file"):
        read_table(path, max_bytes=1_000)


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert digest(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(MissingFileError):
        digest(tmp_path / "y")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "f"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fill_the_disk() -> None:
        with atomic_path(path) as temporary, Path("/dev/full").open("wb", buffering=0) as full:
            temporary.write_text("half")
            full.write(b"x" * 4096)

    with pytest.raises(DiskFullError, match="no space left") as caught:
        fill_the_disk()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    path = write_table(TABLE, tmp_path / "t.csv")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_stream_of_batches(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    batches = [TABLE.to_batches()[0], TABLE]
    assert write_parquet_stream(path, TABLE.schema, batches) == 4
    assert parquet.read_table(path).num_rows == 4

    def failing():
        yield TABLE
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        write_parquet_stream(path, TABLE.schema, failing())
    assert parquet.read_table(path).num_rows == 4
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffix_for_writing(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError):
        write_table(TABLE, tmp_path / "t.xls")


def test_quarantine_parts_add_up_and_repeat_safely(tmp_path: Path) -> None:
    rule = Rule("negative-amount", "zero or more")
    one = quarantine_rows(TABLE, np.array([0]), rule, source="a")
    two = quarantine_rows(TABLE, np.array([1]), rule, source="a")
    first = write_quarantine(one, tmp_path)
    assert first is not None
    again = quarantine_rows(TABLE, np.array([0]), rule, source="a")  # another time stamp
    assert write_quarantine(again, tmp_path) == first
    assert write_quarantine(two, tmp_path) != first
    assert sum(read_table(p).num_rows for p in tmp_path.rglob("*.parquet")) == 2
    assert write_quarantine(empty_quarantine(), tmp_path) is None
    with pytest.raises(ValueError, match="QUARANTINE_SCHEMA"):
        write_quarantine(TABLE, tmp_path)
