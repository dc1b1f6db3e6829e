"""Keys of customers from a file: a key on each line, or the column of a table."""

from __future__ import annotations

import csv
from pathlib import Path

from connectors.private.client.tables import TableError


def read_keys(path: Path, column: str = "") -> list[str]:
    """Read keys in their order.

    Args:
        path: Text with a key on each line or, where a column is named, CSV with names in its first
            line.
        column: Name of the column of keys; empty: the file is no table.

    Raises:
        TableError: When there is no such column, or a row without a key.
    """
    if not column:
        return path.read_text(encoding="utf-8").splitlines()
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        if column not in names:
            raise TableError(f"{path} has no column {column!r}; name the one of keys")
        place = names.index(column)
        keys = [line[place] if place < len(line) else "" for line in lines if line]
    if "" in keys:
        raise TableError(f"{path}: row {keys.index('')} has no {column!r}; leave out such rows")
    return keys
