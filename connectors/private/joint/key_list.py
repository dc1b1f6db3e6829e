"""Keys of customers from a file: a key on each line, or the column of a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from connectors.private.client.tables import TableError


def read_keys(path: Path, column: str = "") -> list[str]:
    """Read keys in their order.

    Args:
        path: Text with a key on each line or, where a column is named, CSV with names in its first
            line.
        column: Name of the column of keys; empty: the file is no table.

    Raises:
        TableError: When there is no such column, a row without a key, or no text at all.
    """
    try:
        with path.open(newline="" if column else None, encoding="utf-8-sig") as file:
            keys = _column(file, column, path) if column else [line.rstrip("\n") for line in file]
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path} is no text file of keys ({error})") from error
    if "" in keys:
        raise TableError(f"{path}: row {keys.index('')} has no key; leave out such rows")
    return keys


def _column(file: TextIO, column: str, path: Path) -> list[str]:
    lines = csv.reader(file)
    names = next(lines, [])
    if column not in names:
        raise TableError(f"{path} has no column {column!r}; name the one of keys")
    place = names.index(column)
    return [line[place] if place < len(line) else "" for line in lines if line]
