"""Which images belong together: those of one physical part, and those that are nearly the same.

Both ties are united: what hangs together by any chain of them is one group, and no group ever
straddles a split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tasks.defects.data.annotation import AnnotationError
from tasks.defects.data.index import rows_of_csv
from tasks.defects.data.pairing import Lookup

NAME_COLUMNS = ("image", "file", "name", "filename", "path")
PART_COLUMNS = ("part", "group", "tile_group", "group_id", "part_id")


def group_ids(parts: Sequence[str], alike: Mapping[int, int]) -> list[int]:
    """Return the group of each image, numbered from 0 in the order of first images.

    Args:
        parts: Physical part of each image; "" where none is known: a part of its own.
        alike: Place of an image -> place of one that it is nearly the same as.
    """
    parent = list(range(len(parts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    ties = [(i, first.setdefault(part, i)) for i, part in enumerate(parts) if part]
    for a, b in [*ties, *alike.items()]:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(parts))]


def parts_by_pattern(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the part of each name that a regular expression is found in.

    The part is what the group named ``part`` holds, else all groups together, else the whole match.

    Raises:
        ValueError: When the expression is none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    found = {}
    for name in names:
        match = compiled.search(name)
        if match is None:
            continue
        groups = match.groupdict()
        texts = [groups["part"]] if "part" in groups else match.groups() or (match[0],)
        found[name] = "/".join(text or "" for text in texts)
    return found


def parts_by_table(
    data: bytes, file: str, names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the part of each name by a CSV with columns such as ``image`` and ``part``.

    A file may be named by its whole path or by its end, where that is enough to tell it.

    Args:
        data: The bytes of the CSV.
        file: Its name, for errors.
        names: Images of the dataset.

    Returns:
        Name -> part, and the names of the CSV that are of no image.

    Raises:
        AnnotationError: When it is no CSV, lacks both columns, names an image that none can tell
            from others, or gives one image two parts.
    """
    lookup = Lookup(names)
    parts: dict[str, str] = {}
    strange = []
    for line, row in rows_of_csv(data, file):
        said = next((row[c] for c in NAME_COLUMNS if c in row), None)
        part = next((row[c] for c in PART_COLUMNS if c in row), None)
        if said is None or part is None:
            lacking = ", ".join(NAME_COLUMNS if said is None else PART_COLUMNS)
            raise AnnotationError(file, 1, f"lacks a column named one of {lacking}")
        found = lookup.named(said)
        if len(found) > 1:
            raise AnnotationError(
                file, line, f"{said[:80]!r} may be {found[0]} or {found[1]}; give the whole path"
            )
        if not found:
            strange.append(said)
        elif parts.setdefault(found[0], part) != part:
            raise AnnotationError(file, line, f"{said[:80]!r} has two parts; give one")
    return parts, strange


def mixed_groups(groups: Sequence[int], labels: Sequence[str | None]) -> list[int]:
    """Return groups that hold good and defective images alike."""
    held: dict[int, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        if label is not None:
            held[group].add(label)
    return sorted(group for group, found in held.items() if len(found) > 1)
