"""One line of JSON as a flat row of texts, exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tasks.cleaning.ingest.options import ReadLimits
from tasks.cleaning.ingest.rejects import (
    CELL_TOO_LARGE,
    DUPLICATE_KEY,
    INVALID_JSON,
    NOT_AN_OBJECT,
    NUL_BYTE,
    TOO_DEEP,
    UNDECODABLE,
)
from tasks.cleaning.quarantine import Rule


class RowError(Exception):
    """A line that is no row.

    Attributes:
        rule: What it broke.
        expected: What would have been right; the rule's text if empty.
        column: The key at fault, if it is one.
    """

    def __init__(self, rule: Rule, expected: str = "", column: str = "") -> None:
        super().__init__(rule.name)
        self.rule = rule
        self.expected = expected
        self.column = column


class _Number(str):
    """The text of a number as it stands in the file."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """The pairs of an object, in their order."""

    __slots__ = ()


def read_row(line: bytes, encoding: str, limits: ReadLimits) -> dict[str, str | None]:
    """Return a line's object as key -> text; nested objects as ``a.b``, lists as JSON text.

    Args:
        line: The line without its end.
        encoding: ``utf-8`` or ``cp1252``.
        limits: Depth and size of cells.

    Raises:
        RowError: When it is no row; says which rule it breaks.
    """
    if b"\0" in line:
        raise RowError(NUL_BYTE)
    try:
        value = _DECODER.decode(line.decode(encoding))
        if not isinstance(value, _Object):
            raise RowError(NOT_AN_OBJECT)
        row: dict[str, str | None] = {}
        for key, text in _flat(value, "", limits.depth):
            if key in row:
                raise RowError(DUPLICATE_KEY, column=key)
            row[key] = text
    except UnicodeDecodeError as error:
        raise RowError(UNDECODABLE, f"bytes that spell text in {encoding}") from error
    except RecursionError as error:
        raise RowError(TOO_DEEP) from error
    except ValueError as error:
        raise RowError(INVALID_JSON) from error
    if b"\\u" in line or len(line) > limits.cell_bytes:
        _require_sound(row, limits)
    return row


def _require_sound(row: dict[str, str | None], limits: ReadLimits) -> None:
    """Refuse texts that escapes or sheer size make unfit for a table."""
    for key, text in row.items():
        try:
            size = max(len(key.encode()), len((text or "").encode()))
        except UnicodeEncodeError as error:
            raise RowError(UNDECODABLE, "no half of a surrogate pair", key) from error
        if "\0" in key or "\0" in (text or ""):
            raise RowError(NUL_BYTE, column=key.replace("\0", ""))
        if size > limits.cell_bytes:
            raise RowError(CELL_TOO_LARGE, f"cells of at most {limits.cell_bytes:,} bytes")


def _pairs(pairs: list[tuple[str, Any]]) -> _Object:
    if len({key for key, _ in pairs}) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RowError(DUPLICATE_KEY, column=twice)
    return _Object(pairs)


_DECODER = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_pairs
)


def _flat(value: _Object, prefix: str, depth: int) -> Iterator[tuple[str, str | None]]:
    """Yield path and text of every value; ``depth`` levels of objects may still come."""
    if depth == 0:
        raise RowError(TOO_DEEP, column=prefix.removesuffix("."))
    for key, item in value:
        path = prefix + key
        if isinstance(item, _Object) and item:
            yield from _flat(item, path + ".", depth - 1)
        else:
            yield path, item if item is None or type(item) is str else _text(item)


def _text(value: Any) -> str:
    """Return a value as compact JSON, plain texts apart, numbers as they were written."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, _Object):
        return "{" + ",".join(f"{_quoted(k)}:{_text(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(item) for item in value) + "]"
    return _quoted(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
