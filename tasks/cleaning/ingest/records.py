"""Where the records of delimited text begin and end, and which of them are no rows.

`tidy` is the quick look: it accepts blocks that any strict reader reads alike. `scan` is the slow
one, for all others: it finds the rows at fault, with the rule each broke, and hands back the bytes
of the good ones, so that the quick reader parses those as well. Both work on the raw bytes of any
encoding that keeps ASCII as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.ingest.encodings import undecodable
from tasks.cleaning.ingest.options import ReadLimits
from tasks.cleaning.ingest.rejects import (
    BROKEN_QUOTES,
    CELL_TOO_LARGE,
    NUL_BYTE,
    TOO_FEW_CELLS,
    TOO_MANY_CELLS,
    UNDECODABLE,
    Reject,
)

LF, CR = 10, 13
FINE, FEW, MANY, QUOTES, LARGE, NUL, BYTES = range(7)
BY_CODE = {
    FEW: TOO_FEW_CELLS,
    MANY: TOO_MANY_CELLS,
    QUOTES: BROKEN_QUOTES,
    LARGE: CELL_TOO_LARGE,
    NUL: NUL_BYTE,
    BYTES: UNDECODABLE,
}
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What stands between and around cells: single ASCII bytes; ``quote`` may be empty."""

    delimiter: bytes
    quote: bytes


@lru_cache(maxsize=64)
def _patterns(dialect: Dialect) -> tuple[re.Pattern[bytes], re.Pattern[bytes] | None]:
    """Return the patterns of a cell without quotes and of a whole quoted one."""
    bare = re.compile(b"[^" + re.escape(dialect.delimiter) + b"\r\n]*+")
    q = re.escape(dialect.quote)
    quoted = re.compile(q + b"((?:[^" + q + b"]++|" + q + q + b")*+)" + q) if q else None
    return bare, quoted


class Record(NamedTuple):
    """One parsed record.

    Attributes:
        end: Place after its last cell, before the line end.
        cells: Their raw bytes.
        state: ``fine``, ``broken`` (text after a closing quote) or ``open`` (no closing quote).
    """

    end: int
    cells: list[bytes]
    state: str


def parse_record(block: bytes, start: int, dialect: Dialect, *, most: int = 1 << 62) -> Record:
    """Parse the record that begins at a place; quotes count only at the start of a cell.

    Args:
        block: The text.
        start: Where the record begins.
        dialect: Between and around cells.
        most: Stop after that many cells.
    """
    bare, quoted = _patterns(dialect)
    cells: list[bytes] = []
    at = start
    while True:
        if quoted and block.startswith(dialect.quote, at):
            match = quoted.match(block, at)
            if not match:
                return Record(len(block), cells, "open")
            cells.append(match[1].replace(dialect.quote * 2, dialect.quote))
            at = match.end()
            if at < len(block) and block[at] not in (LF, CR, dialect.delimiter[0]):
                return Record(at, cells, "broken")
        else:
            match = bare.match(block, at)
            assert match  # noqa: S101 - it may be empty, but it matches anywhere
            cells.append(match[0])
            at = match.end()
        if at >= len(block) or block[at] in (LF, CR) or len(cells) >= most:
            return Record(at, cells, "fine")
        at += 1


def last_line_end(block: bytes, end: int) -> int:
    """Return the place after the last line end before ``end``; 0 for none.

    A carriage return that is the last byte does not count: a line feed may follow it.
    """
    feed = block.rfind(b"\n", 0, end) + 1
    lone = block.rfind(b"\r", feed, min(end, len(block) - 1)) + 1
    return max(feed, lone)


def tidy(block: bytes, dialect: Dialect, limits: ReadLimits, *, final: bool) -> tuple[int, bool]:
    """Say how much of a block every strict reader reads alike, but for cells per row and encoding.

    Args:
        block: Text that starts with a record.
        dialect: Between and around cells.
        limits: Blocks larger than a cell may be are for `scan`.
        final: Whether the file ends here.

    Returns:
        Bytes up to the end of the last whole record, 0 when `scan` must look; and whether some
        cell holds a line end.
    """
    if len(block) > limits.cell_bytes or b"\0" in block:
        return 0, False
    end = len(block) if final else last_line_end(block, len(block))
    if not dialect.quote or dialect.quote not in block:
        return end, False
    bytes_ = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(bytes_ == dialect.quote[0])
    edge = np.zeros(256, np.bool_)
    edge[[LF, CR, dialect.delimiter[0], dialect.quote[0]]] = True
    opening, closing = quotes[0::2], quotes[1::2]
    before = edge[bytes_[opening - 1]]
    before[0] |= opening[0] == 0
    after = closing + 1
    behind = edge[bytes_[np.minimum(after, len(block) - 1)]] | (after == len(block))
    if not (before.all() and behind.all()) or (final and len(quotes) % 2):
        return 0, False
    while not final and end and np.searchsorted(quotes, end) % 2:
        end = last_line_end(block, end - 1)
    # A quote in the last place may be the first half of a doubled one: its record is cut off.
    ends = np.flatnonzero((bytes_ == LF) | (bytes_ == CR) if b"\r" in block else bytes_ == LF)
    inside = bool((np.searchsorted(quotes, ends) % 2).any())
    return end, inside


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` found.

    Attributes:
        used: Bytes of the block that it accounts for; the rest belongs to the next block.
        rows: Records in these bytes, blank lines apart.
        good: The good records, each with its line end.
        good_rows: Their numbers within the block.
        rejects: The others, numbered within the block.
        inside: Whether a good cell holds a line end.
    """

    used: int
    rows: int
    good: bytes
    good_rows: Ints
    rejects: list[Reject]
    inside: bool


@dataclass(slots=True)
class _Lines:
    """Lines of a block [n]: where they start, where their text ends, where the next starts."""

    start: Ints
    stop: Ints
    next: Ints

    @classmethod
    def of(cls, block: bytes, bytes_: NDArray[np.uint8], *, final: bool) -> _Lines:
        feeds = np.flatnonzero(bytes_ == LF)
        returns = np.flatnonzero(bytes_ == CR)
        following = np.append(bytes_, np.uint8(0))[returns + 1]
        lone = returns[following != LF]
        if not final and len(lone) and lone[-1] == len(block) - 1:
            lone = lone[:-1]  # a line feed may follow in the next block
        ends = np.sort(np.concatenate([feeds, lone])) if len(lone) else feeds
        paired = (bytes_[ends] == LF) & (ends > 0) & (bytes_[ends - 1] == CR)
        stop, after = ends - paired, ends + 1
        if final and (not len(after) or after[-1] < len(block)):
            stop, after = np.append(stop, len(block)), np.append(after, len(block))
        return cls(np.concatenate([[0], after[:-1]])[: len(after)], stop, after)

    def cut(self, n: int) -> None:
        """Keep the first n lines."""
        self.start, self.stop, self.next = self.start[:n], self.stop[:n], self.next[:n]


def scan(
    block: bytes,
    dialect: Dialect,
    width: int,
    *,
    encoding: str,
    limits: ReadLimits,
    final: bool,
) -> Scan:
    """Tell the rows of a block from what is none.

    A quote that never closes, or closes in the middle of a cell, costs its own line only: reading
    goes on behind it.

    Args:
        block: Text that starts with a record.
        dialect: Between and around cells.
        width: Cells of a row.
        encoding: ``utf-8`` or ``cp1252``.
        limits: Largest cell.
        final: Whether the file ends here.
    """
    bytes_ = np.frombuffer(block, np.uint8)
    lines = _Lines.of(block, bytes_, final=final)
    if not len(lines.start):
        return Scan(0, 0, b"", np.empty(0, np.int64), [], inside=False)
    cells, suspects = _cells_per_line(bytes_, lines, dialect)
    code = np.where(cells < width, FEW, np.where(cells > width, MANY, FINE))
    head = np.arange(len(code))
    head = _suspects(block, lines, dialect, width, (cells, suspects, code, head), limits, final)
    n = len(head)
    if n == 0:
        return Scan(0, 0, b"", np.empty(0, np.int64), [], inside=False)
    lines.cut(n)
    code, used = code[:n], int(lines.next[-1])
    for value, places in (
        (NUL, np.flatnonzero(bytes_[:used] == 0)),
        (BYTES, undecodable(block[:used], encoding, lines.next)),
    ):
        code[head[np.searchsorted(lines.next, places, "right")]] = value
    first = np.flatnonzero(head == np.arange(n))
    stop = lines.stop[np.append(first[1:], n) - 1]
    if width > 1:
        rows = stop > lines.start[first]  # a blank line is no row
        first, stop = first[rows], stop[rows]
    codes = code[first]
    rejects = [
        Reject(
            int(i),
            block[lines.start[first[i]] : stop[i]],
            BY_CODE[int(codes[i])],
            _expected(int(codes[i]), width, int(cells[first[i]]), encoding, limits),
        )
        for i in np.flatnonzero(codes != FINE)
    ]
    fine = np.flatnonzero(codes == FINE)
    keep = np.zeros(n, np.bool_)
    keep[first[fine]] = True
    keep = keep[head]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]])))
    runs = zip(lines.start[edges[0::2]].tolist(), lines.next[edges[1::2] - 1].tolist(), strict=True)
    good = b"".join([block[begin:end] for begin, end in runs])
    return Scan(
        used, len(first), good, fine, rejects, inside=bool((keep & (head != np.arange(n))).any())
    )


def _cells_per_line(
    bytes_: NDArray[np.uint8], lines: _Lines, dialect: Dialect
) -> tuple[Ints, Ints]:
    """Return cells per line [n], and the lines whose quotes do not stand as in a strict file."""
    delimiters = np.flatnonzero(bytes_ == dialect.delimiter[0])
    quotes = np.flatnonzero(bytes_ == dialect.quote[0]) if dialect.quote else np.empty(0, np.int64)
    quotes = quotes[quotes < lines.next[-1]]
    suspects = np.empty(0, np.int64)
    if len(quotes):
        earlier = np.searchsorted(quotes, lines.start)  # quotes before each line
        line = np.repeat(np.arange(len(earlier)), np.diff(np.append(earlier, len(quotes))))
        opening = (np.arange(len(quotes)) - earlier[line]) % 2 == 0
        edge = np.zeros(256, np.bool_)
        edge[[dialect.delimiter[0], dialect.quote[0]]] = True
        after = np.minimum(quotes + 1, len(bytes_) - 1)
        before_ok = (quotes == lines.start[line]) | edge[bytes_[quotes - 1]]
        behind_ok = (quotes + 1 == lines.stop[line]) | edge[bytes_[after]]
        wrong = np.where(opening, ~before_ok, ~behind_ok)
        odd = np.flatnonzero(np.diff(np.append(earlier, len(quotes))) % 2)
        suspects = np.union1d(line[wrong], odd)
        at = np.searchsorted(lines.next, delimiters, "right")
        at = np.minimum(at, len(lines.start) - 1)
        inside = (np.searchsorted(quotes, delimiters) - earlier[at]) % 2 == 1
        delimiters = delimiters[~inside]
    cells = np.searchsorted(delimiters, lines.stop) - np.searchsorted(delimiters, lines.start) + 1
    return cells, suspects


def _suspects(
    block: bytes,
    lines: _Lines,
    dialect: Dialect,
    width: int,
    state: tuple[Ints, Ints, Ints, Ints],
    limits: ReadLimits,
    final: bool,  # noqa: FBT001 - passed on from scan
) -> Ints:
    """Parse the suspect and the very long lines; returns the head line of every line.

    ``cells`` and ``code`` of the state are corrected in place. The answer is shorter than the
    lines when the last record goes on in the next block.
    """
    cells, suspects, code, head = state
    long = np.flatnonzero(lines.next - lines.start > limits.cell_bytes)
    doubtful = set(suspects.tolist())
    behind = 0
    for i in sorted(doubtful.union(long.tolist())):
        if i < behind:
            continue
        start = int(lines.start[i])
        record = parse_record(block, start, dialect)
        waiting = record.state == "open" and len(block) - start <= limits.cell_bytes
        # Its end, or a carriage return that may be half of it, lies behind the last whole line.
        cut_off = record.state == "fine" and record.end > lines.stop[-1]
        if not final and (waiting or cut_off):
            return head[:i]
        if record.state != "fine":
            code[i] = QUOTES
            continue
        last = int(np.searchsorted(lines.stop, record.end))
        if last > i and len(record.cells) != width and _stray(i + 1, cells, doubtful, width):
            code[i] = QUOTES
            continue
        behind = last + 1
        head[i : last + 1] = i
        cells[i] = n = len(record.cells)
        code[i] = FEW if n < width else MANY if n > width else FINE
        if max(map(len, record.cells)) > limits.cell_bytes:
            code[i] = LARGE
    return head


def _stray(following: int, cells: Ints, doubtful: set[int], width: int) -> bool:
    """Whether the line after an opened quote is a row of its own: then the quote is a stray one."""
    return (
        following < len(cells)
        and width > 1
        and following not in doubtful
        and int(cells[following]) == width
    )


def _expected(code: int, width: int, cells: int, encoding: str, limits: ReadLimits) -> str:
    if code in (FEW, MANY):
        return f"{width} cells, as the table has columns; this row has {cells}"
    if code == LARGE:
        return f"cells of at most {limits.cell_bytes:,} bytes"
    return f"bytes that spell text in {encoding}" if code == BYTES else ""
