"""Tables of strangers from files: packed, Parquet, and what is no file at all."""

from __future__ import annotations

import datetime as dt
import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from connectors.tables import read_batches, read_whole
from tasks.cleaning.ingest.errors import ExpansionError, TableReadError
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions

GOOD = b"id,name\n1,a\n2,b\n"


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_packed(tmp_path, pack):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(pack(GOOD) + (gzip.compress(b"3,c\n") if pack is gzip.compress else b""))
    batch = read_whole(path)
    assert batch.frame["name"].to_list()[:2] == ["a", "b"]
    assert batch.rows_in == (3 if pack is gzip.compress else 2)
    path.write_bytes(pack(GOOD * 1000)[:-6])
    with pytest.raises(TableReadError):
        read_whole(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_bombs_are_refused(tmp_path, pack):
    path = tmp_path / "bomb.csv"
    path.write_bytes(pack(b"a,b\n" + b"1,2\n" * 100_000))
    options = ReadOptions(limits=ReadLimits(ratio=20, ratio_from=100_000, block_bytes=10_000))
    with pytest.raises(ExpansionError, match="ratio"):
        list(read_batches(path, options))
    options = ReadOptions(limits=ReadLimits(expanded_bytes=200_000))
    with pytest.raises(ExpansionError, match="expanded_bytes"):
        list(read_batches(path, options))


def test_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe", Path("a\0b"), Path("x" * 999)):
        with pytest.raises(TableReadError):
            read_whole(path)


def test_whole_table_must_fit(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD)
    with pytest.raises(TableReadError, match="table_bytes"):
        read_whole(tmp_path / "a.csv", ReadOptions(limits=ReadLimits(table_bytes=1)))


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({
        "i": [1, None, 3], "f": [1.0, 2.5, None], "s": ["a", "b\0", ""],
        "d": [dt.date(2026, 1, 2)] * 3, "in": [{"x": 1, "y": [1, 2]}] * 3,
        "raw": [b"ok", b"ok", b"\xff"],
    })  # fmt: skip
    parquet.write_table(table, path)
    batch = read_whole(path)
    assert batch.layout.columns == ("i", "f", "s", "d", "in.x", "in.y", "raw")
    assert batch.frame.rows() == [("1", "1.0", "a", "2026-01-02", "1", "[1,2]", "ok")]
    records = batch.quarantine.to_pylist()
    assert [(r["row"], r["rule"], r["column"]) for r in records] == [
        (1, "nul-byte", "s"), (2, "undecodable", "raw"),
    ]  # fmt: skip
    content = path.read_bytes()
    for damaged in (content[:-20], content[:40], content[:-8] + b"\xff\xff\xff\x7fPAR1", GOOD):
        path.write_bytes(damaged)
        with pytest.raises(TableReadError):
            read_whole(path)


def test_a_dictionary_of_long_values_comes_in_small_batches(tmp_path):
    path = tmp_path / "a.parquet"
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * 100_000])
    parquet.write_table(pa.table({"s": long}), path)
    assert path.stat().st_size < 1 << 20
    batch = next(read_batches(path))
    assert batch.frame.estimated_size() < 70 << 20
