"""Tables that a stranger might send: by hand, and good ones with their bytes turned over.

Every entry is a file name, its bytes, and what is known of it: how many rows it must give, how many
of them set aside, or that it must be refused. None of it comes from outside.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

REFUSED = -1
UNKNOWN = -2
WORDS = ("alder", "birch", "cedar", "été", "naïve", "5 inch", "x" * 40, "=1+1", "@sum", "日本", "")


class Hostile(NamedTuple):
    """A file and what is known of it.

    Attributes:
        name: File name; the suffix counts.
        content: Its bytes.
        rows: Rows it must give, read or set aside; `REFUSED`, or `UNKNOWN`.
        aside: Rows that must be set aside; `UNKNOWN` where any number is right.
    """

    name: str
    content: bytes
    rows: int = UNKNOWN
    aside: int = UNKNOWN


def by_hand() -> Iterator[Hostile]:
    """Yield one file for every trouble that is known by name."""
    good = b"id,name,size\n1,a,2\n2,b,3\n3,c,4\n"
    yield Hostile("empty.csv", b"", REFUSED)
    yield Hostile("blank.csv", b"\n\r\n\n", REFUSED)
    yield Hostile("header-only.csv", b"id,name\n", 0, 0)
    yield Hostile("no-header.csv", b"1,2\n3,4\n", 2, 0)
    yield Hostile("no-end.csv", b"id,name\n1,a\n2,b", 2, 0)
    yield Hostile("bom.csv", b"\xef\xbb\xbf" + good, 3, 0)
    yield Hostile("utf-16-le.csv", b"\xff\xfe" + "a,b\n1,é\n".encode("utf-16-le"), 1, 0)
    yield Hostile("utf-16-be.csv", b"\xfe\xff" + "a,b\n1,é\n".encode("utf-16-be"), 1, 0)
    yield Hostile("utf-16-odd.csv", b"\xff\xfe" + "a,b\n1,é\n".encode("utf-16-le") + b"x", 2, 1)
    yield Hostile("utf-16-half.csv", b"\xff\xfe" + b"a\0,\0b\0\n\0" + b"1\0,\0\x00\xd8\n\0", 1, 1)
    yield Hostile("utf-32.csv", good.decode().encode("utf-32"), REFUSED)
    yield Hostile("cp1252.csv", "a,b\n1,café\n2,naïve\n".encode("cp1252"), 2, 0)
    yield Hostile("broken-utf-8.csv", "a,b\n1,café\n2,é\n".encode() + b"3,\xff\xfe\n", 3, 1)
    yield Hostile("ragged.csv", b"a,b\n1,2\n3\n4,5,6\n7,8\n", 4, 2)
    yield Hostile("nul.csv", b"a,b\n1,2\n3,\x004\n", 2, 1)
    yield Hostile("ends.csv", b"a,b\n1,2\r\n3,4\r5,6\n", 3, 0)
    yield Hostile("old-mac.csv", b"a,b\r1,2\r3,4\r", 2, 0)
    yield Hostile("open-quote.csv", b'a,b\n1,x\n2,"y\n3,z\n4,w\n', 4, 1)
    yield Hostile("late-quote.csv", b'a,b\n1,5" pipe\n2,"q"x\n', 2, 1)
    yield Hostile("multi-line.csv", b'a,b\n1,"x\n\ny"\n2,z\n', 2, 0)
    yield Hostile("names.csv", b"a,a,,a\n1,2,3,4\n", 1, 0)
    yield Hostile("title.csv", b"Report of May\n\na,b\n1,2\n3,4\n", 3, 1)
    yield Hostile("semicolon.csv", b"a;b\n1,5;2\n2,5;3\n", 2, 0)
    yield Hostile("pipe.txt", b"a|b\n1|2\n", 1, 0)
    yield Hostile("tab.tsv", b"a\tb\n1\t2\n", 1, 0)
    yield Hostile("formulas.csv", b"a,b\n=cmd|' /C calc'!A0,+1\n@x,-2\n", 2, 0)
    yield Hostile("large-cell.csv", b"a,b\n1," + b"x" * (11 << 20) + b"\n2,y\n", 2, 1)
    yield Hostile("large-quoted.csv", b'a,b\n1,"' + b"x\n" * (6 << 20) + b'"\n2,y\n', UNKNOWN)
    yield Hostile("one-line.csv", b"a,b\n" + b"x" * (48 << 20), REFUSED)
    yield Hostile("commas.csv", b"," * 200_000 + b"\n", REFUSED)
    yield Hostile("quotes.csv", b"a,b\n" + b'"' * 300_001 + b"\n1,2\n", UNKNOWN)
    yield Hostile("quote-lines.csv", b"a,b\n" + b'"x""\n' * 20_000, UNKNOWN)
    yield Hostile("picture.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, REFUSED)
    yield Hostile("workbook.csv", b"PK\x03\x04" + bytes(500), REFUSED)
    yield Hostile("noise.csv", np.random.default_rng(1).bytes(5_000), REFUSED)
    yield Hostile("parquet.csv", _parquet(np.random.default_rng(2), 10), REFUSED)
    yield Hostile("text.parquet", good, REFUSED)
    yield Hostile("short.parquet", b"PAR1", REFUSED)
    yield Hostile("footer.parquet", _parquet(np.random.default_rng(3), 50)[:-9] + b"PAR1", REFUSED)
    yield Hostile("bomb.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * (16 << 18)), REFUSED)
    yield Hostile("bomb.csv.zst", _zstd(b"a,b\n" + b"1,2\n" * (16 << 18)), REFUSED)
    yield Hostile("cut.csv.gz", gzip.compress(good * 50)[:-15], REFUSED)
    yield Hostile("cut.csv.zst", _zstd(good * 50)[:-5], REFUSED)
    yield Hostile("twice.csv.gz", gzip.compress(gzip.compress(good * 50)), REFUSED)
    yield Hostile("members.csv.gz", gzip.compress(good) + gzip.compress(b"4,d,5\n"), 4, 0)
    yield Hostile("not.csv.gz", good, REFUSED)
    yield from _json_by_hand()


def _json_by_hand() -> Iterator[Hostile]:
    yield Hostile("good.jsonl", b'{"a":1.10,"b":"x"}\n\n{"a":2,"b":null}\n', 2, 0)
    yield Hostile("broken.jsonl", b'{"a":1}\n{"a":\n{"a":2}x\n[1]\nnull\n{"a":3}\n', 6, 4)
    yield Hostile("twice.jsonl", b'{"a":1}\n{"a":1,"a":2}\n', 2, 1)
    yield Hostile("surrogate.jsonl", b'{"a":"\\ud800"}\n{"a":"\\ud83d\\ude00"}\n', 2, 1)
    yield Hostile("nul.jsonl", b'{"a":"\\u0000"}\n{"a":"b"}\n', 2, 1)
    yield Hostile("deep.jsonl", b'{"a":' + b"[" * 99_999 + b"]" * 99_999 + b'}\n{"a":1}\n', 2, 1)
    yield Hostile("nested.jsonl", b'{"a":{"b":{"c":1}}}\n{"a":{"b":{"c":{"d":1}}}}\n', 2, 1)
    yield Hostile("list.json", b'[{"a":1},{"a":2}]', REFUSED)
    yield Hostile("digits.jsonl", b'{"a":' + b"9" * 100_000 + b"}\n", 1, 0)
    yield Hostile("keys.jsonl", b"".join(b'{"k%d":1}\n' % i for i in range(12_000)), REFUSED)
    yield Hostile("nothing.jsonl", b"{}\n{}\n", 2, 0)


def good_files(rng: np.random.Generator, rows: int = 300) -> Iterator[Hostile]:
    """Yield well-made files of every kind, to be spoilt."""
    lines = [
        [str(i), WORDS[rng.integers(len(WORDS))], f"{rng.normal(50, 9):.2f}", "yes"]
        for i in range(rows)
    ]
    head = ["id", "word", "size", "ok"]
    for name, delimiter, end in (
        ("a.csv", ",", "\n"),
        ("b.csv", ";", "\r\n"),
        ("c.tsv", "\t", "\n"),
    ):
        text = end.join(delimiter.join(cells) for cells in (head, *lines)) + end
        yield Hostile(name, text.encode())
    quoted = "\n".join(",".join(f'"{c}\n""{c}"""' for c in cells) for cells in (head, *lines))
    yield Hostile("d.csv", quoted.encode())
    plain = "\n".join("|".join(cells) for cells in (head, *lines))
    yield Hostile("e.txt", plain.replace("日本", "ø").encode("cp1252"))
    yield Hostile("f.csv", b"\xff\xfe" + plain.replace("|", ",").encode("utf-16-le"))
    rows_ = [dict(zip(head, cells, strict=True)) for cells in lines]
    as_json = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows_).encode()
    yield Hostile("g.jsonl", as_json)
    inner = [{"id": i, "in": {"x": [i, None], "y": {"z": c[1]}}} for i, c in enumerate(lines)]
    nested = [json.dumps(row) for row in inner]
    yield Hostile("h.ndjson", "\n".join(nested).encode())
    yield Hostile("i.parquet", _parquet(rng, rows))
    yield Hostile("j.csv.gz", gzip.compress(plain.replace("|", ",").encode()))
    yield Hostile("k.jsonl.zst", _zstd(as_json))


def spoilt(rng: np.random.Generator, count: int) -> Iterator[Hostile]:
    """Yield ``count`` good files with bytes turned over, one to four faults each."""
    sources = list(good_files(rng))
    for i in range(count):
        source = sources[i % len(sources)]
        content = bytearray(source.content)
        for _ in range(int(rng.integers(1, 5))):
            _spoil(content, rng)
        yield Hostile(f"{i:04d}-{source.name}", bytes(content))


TOKENS = (
    b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"{", b"}",
    b"[" * 50, b'\n"', b'",', b"\xef\xbb\xbf", b"\\", b"'", b"\xed\xa0\x80", b"\x1a",
)  # fmt: skip


def _spoil(content: bytearray, rng: np.random.Generator) -> None:
    """Do one thing to some bytes that may happen on the way."""
    n = max(len(content), 1)
    at, length = int(rng.integers(n)), int(rng.integers(1, max(n // 10, 2)))
    kind = rng.integers(9)
    if kind == 0:  # bits turned over
        for place in rng.integers(n, size=8):
            content[place : place + 1] = bytes([int(rng.integers(256))])
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        del content[at : at + length]
    elif kind == 3:
        content[at:at] = content[at : at + length]
    elif kind == 4:
        content[at:at] = rng.bytes(int(rng.integers(1, 60)))
    elif kind == 5:
        content[at : at + 1] = b"\0" * int(rng.integers(1, 40))
    elif kind == 6:
        content[:] = content[at:] + content[:at]
    else:
        for place in sorted(rng.integers(n, size=5), reverse=True):
            content[place:place] = TOKENS[rng.integers(len(TOKENS))]


def _parquet(rng: np.random.Generator, rows: int) -> bytes:
    table = pa.table({
        "id": pa.array(np.arange(rows)),
        "word": pa.array([WORDS[i] for i in rng.integers(len(WORDS), size=rows)]),
        "size": pa.array(rng.normal(size=rows)),
        "in": pa.array([{"x": i, "y": [i, None]} for i in range(rows)]),
        "raw": pa.array([bytes([i % 256]) for i in range(rows)]),
    })  # fmt: skip
    sink = io.BytesIO()
    parquet.write_table(table, sink, row_group_size=max(rows // 3, 1))
    return sink.getvalue()


def _zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed
