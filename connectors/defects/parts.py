"""The physical parts that images show, by what a person gives: a table, or a pattern of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from connectors.defects.annotation_files import read_note
from tasks.defects.data.groups import parts_by_pattern, parts_by_table

MAX_BYTES = 64 << 20


def named_parts(
    names: Sequence[str], table: Path | None, pattern: str
) -> tuple[dict[str, str], list[str]]:
    """Return the part of each name that one is known of; the table goes before the pattern.

    Args:
        names: Images.
        table: A CSV such as ``image,part``; None without one.
        pattern: A regular expression that finds the part in a path; "" without one.

    Returns:
        Name -> part, and the names of the table that are of no image.

    Raises:
        AnnotationError: When the table cannot be used.
        ValueError: When the expression is none.
    """
    found = parts_by_pattern(names, pattern) if pattern else {}
    if table is None:
        return found, []
    data = read_note(table.absolute(), table.name, MAX_BYTES)
    listed, strange = parts_by_table(data, table.name, names)
    return found | listed, strange
