"""Delimiter, quotes, header and width of delimited text, told from its first rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.cleaning.ingest.errors import TableReadError
from tasks.cleaning.ingest.options import ReadOptions
from tasks.cleaning.ingest.records import Dialect, Record, parse_record

DELIMITERS = (b",", b";", b"\t", b"|")
SAMPLE = 1 << 18
RECORDS = 200
AGREE = 0.9
VALUE = re.compile(
    rb"[-+]?[\d., ]*\d[\d., ]*(?:[eE][-+]?\d+)?\s*%?"
    rb"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ][\d:.+Zz-]+)?"
)
"""A cell that is a number or a date: hardly the name of a column."""


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the first rows tell.

    Attributes:
        dialect: Between and around cells.
        names: Names of the columns, unique.
        header: Whether they stand in the file.
        above: Raw records above the header: titles and the like.
        data: Place where the rows begin.
    """

    dialect: Dialect
    names: tuple[str, ...]
    header: bool
    above: tuple[bytes, ...]
    data: int


def sniff(text: bytes, source: str, options: ReadOptions, encoding: str) -> Sniffed:
    """Tell how a table is written.

    Args:
        text: Its first bytes, in an encoding that keeps ASCII as it is, ending with a whole line.
        source: Name of the file, for messages.
        options: What is known; it is taken as given.
        encoding: Of the names.

    Raises:
        TableReadError: When there are no rows at all, or more columns than granted.
    """
    text = (
        text[:SAMPLE] if len(text) <= SAMPLE else text[: text.rfind(b"\n", 0, SAMPLE) + 1] or text
    )
    dialect = _dialect(text, options)
    starts, records = _records(text, dialect)
    if not records:
        raise TableReadError(source, "the file holds blank lines only", "export it again")
    width = Counter(len(r.cells) for r in records).most_common(1)[0][0]
    first = 0
    if len(records[0].cells) == 1 and width > 1:
        # A title line or two, then the table.
        first = next(i for i, r in enumerate(records) if len(r.cells) == width)
    head, rest = records[first], [r.cells for r in records[first + 1 :]]
    header = options.header if options.header is not None else is_header(head.cells, rest)
    widths = Counter(map(len, rest))
    common, count = widths.most_common(1)[0] if rest else (len(head.cells), 0)
    width = len(head.cells)
    if common > width and (not header or count >= AGREE * len(rest)):
        width = common
    if width > options.limits.columns:
        raise TableReadError(
            source,
            f"it has {width:,} columns, more than the {options.limits.columns:,} granted",
            "name its delimiter, or raise the limit 'columns'",
        )
    cells = [c.decode(encoding, "replace") for c in head.cells] if header else []
    above = tuple(text[starts[i] : records[i].end] for i in range(first))
    data = starts[first]
    if header:
        data = head.end
        data += 2 if text.startswith(b"\r\n", data) else 1 if data < len(text) else 0
    return Sniffed(dialect, unique_names(cells, width), header, above, data)


def unique_names(names: Iterable[str], width: int) -> tuple[str, ...]:
    """Return a name for every column: blanks trimmed, empty ones numbered, repeated ones counted.

    ``["a", "", "a"]`` becomes ``("a", "column_2", "a_2")``. Names that stand for several columns in
    an expression (``*``, ``^…$``) are numbered as empty ones are.

    Args:
        names: As they stand in the file; may be too few.
        width: Columns.
    """
    given = [n.replace("\0", "").strip(" \t\r\n\ufeff") for n in names][:width]
    given = ["" if n == "*" or (n.startswith("^") and n.endswith("$")) else n for n in given]
    given += [""] * (width - len(given))
    taken = {name for name in given if name}
    used: set[str] = set()
    made = []
    for i, name in enumerate(given):
        base, chosen, k = name or f"column_{i + 1}", name or f"column_{i + 1}", 2
        while chosen in used or (chosen in taken and chosen != name):
            chosen, k = f"{base}_{k}", k + 1
        used.add(chosen)
        made.append(chosen)
    return tuple(made)


def is_header(first: Sequence[bytes], rest: Sequence[Sequence[bytes]]) -> bool:
    """Whether the first record names the columns.

    It does not when one of its cells is a number or a date, or when it looks like any other: two
    equal cells or an empty one, and no column that holds numbers under a word.
    """
    if any(VALUE.fullmatch(cell.strip()) for cell in first):
        return False
    columns = [[row[i].strip() for row in rest if i < len(row)] for i in range(len(first))]
    for cells in columns:
        filled = [c for c in cells if c]
        if filled and sum(bool(VALUE.fullmatch(c)) for c in filled) >= AGREE * len(filled):
            return True
    if not rest:
        return True
    named = [cell.strip() for cell in first]
    repeated = any(name and name in cells for name, cells in zip(named, columns, strict=True))
    return not repeated and any(named)


def _dialect(text: bytes, options: ReadOptions) -> Dialect:
    """Return the delimiter and quote that cut the sample most evenly."""
    quotes = [b'"'] if options.quote is None else [options.quote.encode()]
    delimiters = DELIMITERS if options.delimiter is None else [options.delimiter.encode()]
    best, rank = Dialect(delimiters[0], quotes[0]), (0.0, 0)
    for delimiter in delimiters:
        for quote in quotes:
            dialect = Dialect(delimiter, quote)
            counts = Counter(len(r.cells) for r in _records(text, dialect)[1] if r.state == "fine")
            counts.pop(1, None)
            if not counts:
                continue
            modal, n = counts.most_common(1)[0]
            if (found := (n, modal)) > rank:
                best, rank = dialect, found
    if options.quote is None:
        best = Dialect(best.delimiter, _quote(text, best))
    return best


def _quote(text: bytes, dialect: Dialect) -> bytes:
    """Return ``"``; ``'`` where only that stands around cells; none where ``"`` mostly breaks."""
    bare = _records(text, Dialect(dialect.delimiter, b""))[1]
    opened = sum(c.startswith(b'"') for r in bare for c in r.cells)
    if opened:
        states = Counter(r.state for r in _records(text, dialect)[1])
        broken = states["broken"] + states["open"]
        return b"" if broken > max(2, sum(states.values()) / 2) else b'"'
    single = sum(
        any(len(c) > 1 and c.startswith(b"'") and c.endswith(b"'") for c in r.cells) for r in bare
    )
    return b"'" if bare and single >= AGREE * len(bare) else b'"'


def _records(text: bytes, dialect: Dialect) -> tuple[list[int], list[Record]]:
    """Return the first records, blank lines apart, and their starts; broken ones line by line."""
    starts: list[int] = []
    records: list[Record] = []
    at = 0
    while at < len(text) and len(records) < RECORDS:
        record = parse_record(text, at, dialect)
        end = record.end
        if record.state != "fine":
            plain = parse_record(text, at, Dialect(dialect.delimiter, b""))
            record, end = Record(plain.end, plain.cells, record.state), plain.end
        if end > at:
            starts.append(at)
            records.append(record)
        at = end + (2 if text.startswith(b"\r\n", end) else 1)
    return starts, records
