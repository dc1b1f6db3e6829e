"""Delimited text and JSON lines of strangers: every row read or set aside with its bytes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.ingest import delimited, jsonl
from tasks.cleaning.ingest.delimited import read_delimited
from tasks.cleaning.ingest.dialect import unique_names
from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.jsonl import read_jsonl
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions


def result(content, read=read_delimited, size=0, **options):
    """Return columns, rows, row numbers and (row, rule, payload) of what was set aside."""
    size = size or max(len(content), 1)
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    limits = options.pop("limits", ReadLimits(block_bytes=size))
    batches = list(read(blocks, "f", ReadOptions(limits=limits, **options)))
    assert all(b.rows_in == b.frame.height + b.quarantine.num_rows for b in batches)
    aside = [(r["row"], r["rule"], r["payload"]) for b in batches for r in b.quarantine.to_pylist()]
    rows = pl.concat([b.frame for b in batches]).rows()
    return batches[-1].layout, rows, [int(n) for b in batches for n in b.rows], aside


CASES = {
    b"a,b\n1,2\n3\n4,5,6\n7,8\n": (
        [("1", "2"), ("7", "8")],
        [(1, "too-few-cells", b"3"), (2, "too-many-cells", b"4,5,6")],
    ),
    b'a,b\n1,"x\ny"\n2,"bad\n3,ok\n': (
        [("1", "x\ny"), ("3", "ok")],
        [(1, "broken-quotes", b'2,"bad')],
    ),
    b'a,b\n1,5" pipe\n2,"q""q"\n3,"z"z\n': (
        [("1", '5" pipe'), ("2", 'q"q')],
        [(2, "broken-quotes", b'3,"z"z')],
    ),
    b"a,b\n1,x\0y\n2,=cmd()\n": ([("2", "=cmd()")], [(0, "nul-byte", b"1,x\0y")]),
    "a,b\n1,é\n2,ü\n".encode() + b"3,\xff\n": (
        [("1", "é"), ("2", "ü")],
        [(2, "undecodable", b"3,\xff")],
    ),
    b"a,b\n1,caf\xe9\n": ([("1", "café")], []),
    b"a,b\r\n1,2\r3,4\n\n5,6": ([("1", "2"), ("3", "4"), ("5", "6")], []),
    b"\xef\xbb\xbfa;b\n1,5;2\n": ([("1,5", "2")], []),
    "a,b\n1,é😀\n".encode("utf-16"): ([("1", "é😀")], []),
    "a,b\n1,é\n".encode("utf-16") + b"x": ([("1", "é")], [(1, "undecodable", b"x")]),
    b"1,2\n3,4\n": ([("1", "2"), ("3", "4")], []),
    b"Report\n\na,b\n1,2\n3,4\n": (
        [("1", "2"), ("3", "4")],
        [(-1, "too-few-cells", b"Report")],
    ),
}


@pytest.mark.parametrize("content", CASES)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_delimited(content, size):
    rows, aside = CASES[content]
    _, found, numbers, records = result(content, size=size)
    assert (found, records) == (rows, aside)
    assert sorted(numbers + [row for row, _, _ in records]) == list(
        range(-sum(row < 0 for row, _, _ in records), len(rows) + sum(r[0] >= 0 for r in records))
    )


def test_layout_is_told():
    layout = result("x|y\nä|1\n".encode("cp1252"))[0]
    assert (layout.encoding, layout.delimiter, layout.header) == ("cp1252", "|", True)
    assert layout.columns == ("x", "y")
    assert unique_names(["a", "", "a", "a_2"], 5) == ("a", "column_2", "a_3", "a_2", "column_5")


@pytest.mark.parametrize(
    "content", [b"", b"\n\r\n", b"PK\x03\x04" + bytes(99), b"," * 11_000 + b"\n", bytes(500)]
)
def test_no_table_is_a_typed_error(content):
    with pytest.raises(TableReadError, match=r"^f: .+; .+"):
        result(content)


def test_limits_of_cells_and_rows():
    limits = ReadLimits(block_bytes=64, cell_bytes=100, row_bytes=300)
    _, rows, _, aside = result(b"a,b\n1," + b"x" * 101 + b"\n2,y\n", limits=limits)
    assert rows == [("2", "y")]
    assert aside == [(0, "cell-too-large", b"1," + b"x" * 101)]
    opened = b'a,b\n1,"x\n' + b"2,y\n" * 100
    _, rows, _, aside = result(opened, limits=limits)
    assert len(rows) == 100
    assert aside == [(0, "broken-quotes", b'1,"x')]
    with pytest.raises(TableReadError, match="row_bytes"):
        result(b"a,b\n" + b"x" * 400_000, size=64, limits=limits)


def test_quick_and_slow_way_and_all_block_sizes_agree(monkeypatch):
    rng = np.random.default_rng(5)
    parts = ["a", "b", ",", "\n", '"', "\r\n", "\r", '""', ',"', '",', "é", '\n"', '"\n', "\xff"]
    monkeypatch.setattr(delimited, "SNIFFED", 0)
    known = {"header": True, "delimiter": ",", "quote": '"'}
    for _ in range(60):
        text = "a,b\n" + "".join(parts[i] for i in rng.integers(len(parts), size=30))
        content = text.encode()
        whole = result(content, **known)
        monkeypatch.setattr(delimited, "PIECE", 1 << 20)
        with monkeypatch.context() as patch:
            patch.setattr(delimited, "tidy", lambda *_, **__: (0, False))
            assert result(content, **known) == whole
        monkeypatch.setattr(delimited, "PIECE", 5)
        for size in (0, 1, 8):
            assert result(content, size=size, **known) == whole


def test_json_lines():
    lines = [
        b'{"a":1.10,"b":"x"}', b'{"a":2,"b":null}', b"", b'{"a":1}{"a":2}', b'{"b":"y","a":-0}',
        b'{"c":{"d":[1,2.50,{"e":null}]},"f":true}', b"[1]", b'{"a":1,"a":2}',
        b'{"a":"\\ud800"}', b'{"a":"\\u0000"}', b'{"a":{"b":{"c":{"d":1}}}}',
        b'{"a":' + b"[" * 99_999 + b"}",
    ]  # fmt: skip
    layout, rows, _, aside = result(b"\n".join(lines), read_jsonl)
    assert layout.columns == ("a", "b", "c.d", "f")
    assert rows == [
        ("1.10", "x", None, None), ("2", None, None, None), ("-0", "y", None, None),
        (None, None, '[1,2.50,{"e":null}]', "true"),
    ]  # fmt: skip
    assert [(row, rule) for row, rule, _ in aside] == [
        (2, "invalid-json"), (5, "not-an-object"), (6, "duplicate-key"), (7, "undecodable"),
        (8, "nul-byte"), (9, "too-deep"), (10, "too-deep"),
    ]  # fmt: skip
    assert aside[0][2] == lines[3]


def test_json_quick_and_slow_way_agree(monkeypatch):
    rng = np.random.default_rng(3)
    values = ["1", "1.0", "-0", "0.00001", "0.1234", "12345678901234567", "1e3", "123456789.123456",
              '"é"', '"a\\\\b\\"c"', '""', "null", "true", "999999999999999", "-7.5"]  # fmt: skip
    picks = rng.integers(len(values), size=(3000, 2))
    content = "\n".join(f'{{"a": {values[i]},"b":{values[j]}}}' for i, j in picks).encode()
    quick = result(content, read_jsonl)
    monkeypatch.setattr(jsonl, "_plain_keys", lambda *_: ())
    assert result(content, read_jsonl) == quick
    assert len(quick[1]) == 3000


def test_json_keys_of_later_blocks_are_set_aside():
    content = b'{"a":1}\n' * 10_000 + b'{"a":2,"z":3}\n{"a":4}\n'
    _, rows, _, aside = result(content, read_jsonl, size=1 << 16)
    assert [row[0] for row in rows] == ["1"] * 10_000 + ["4"]
    assert aside == [(10_000, "unknown-key", b'{"a":2,"z":3}')]
    with pytest.raises(TableReadError, match="one object per line"):
        result(b'[{"a":1}]', read_jsonl)
