"""The index of a dataset: a CSV that says all that is known of each image; read and written.

Columns: image, label (ok, ng, or empty where nobody looked), kind, mask, part, left, top, right,
bottom. An image has one row of its own without corners, and one more for each box, whose kind
is the box's. Pixels count from 0 in the image as it is shown (upright by EXIF).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from tasks.defects.data.annotation import (
    MAX_BOXES,
    AnnotationError,
    checked_box,
    checked_kind,
    decoded,
    number,
    require_size,
)
from tasks.defects.samples import Box, Label

COLUMNS = ("image", "label", "kind", "mask", "part", "left", "top", "right", "bottom")
CORNERS = COLUMNS[-4:]
MAX_BYTES = 64 << 20
MAX_FIELD = 4_096


@dataclass(frozen=True, slots=True)
class Entry:
    """What an index says of one image.

    Attributes:
        image: Path within the folder of the index.
        label: ``ok``, ``ng`` or None.
        kind: Type of the defect, "".
        mask: Path of the mask, "".
        part: The physical part, "".
        boxes: Rectangles of defects.
    """

    image: str
    label: Label | None = None
    kind: str = ""
    mask: str = ""
    part: str = ""
    boxes: tuple[Box, ...] = ()


def parse_index(data: bytes, file: str) -> list[Entry]:
    """Return what an index says, in the order in which images first occur.

    A row with corners and no row of the image's own means an image labelled ng, of the kind of its
    first box. Columns that are missing are empty; others are left aside.

    Raises:
        AnnotationError: With the line, when the file is too large, no CSV, lacks the column
            ``image``, or rows of one image contradict each other.
    """
    require_size(data, MAX_BYTES, file)
    own: dict[str, Entry] = {}
    boxes: dict[str, list[Box]] = {}
    for line, row in rows_of_csv(data, file, need=("image",)):
        name = row["image"]
        if not name:
            raise AnnotationError(file, line, "no image is named")
        label = row.get("label", "").lower()
        if label not in {"", "ok", "ng"}:
            raise AnnotationError(file, line, f"label {label[:40]!r}: write ok, ng or nothing")
        kind = checked_kind(row.get("kind", ""), file, line)
        held = boxes.setdefault(name, [])
        corners = [row.get(corner, "") for corner in CORNERS]
        if any(corners):
            if label == "ok":
                raise AnnotationError(file, line, f"{name}: a box on an image labelled ok")
            if len(held) >= MAX_BOXES:
                raise AnnotationError(file, line, f"{name}: more than {MAX_BOXES:,} boxes")
            left, top, right, bottom = (
                number(text, corner, file, line)
                for text, corner in zip(corners, CORNERS, strict=True)
            )
            held.append(checked_box((left, top, right, bottom), kind, file, line))
            continue
        said = Entry(
            name,
            cast("Label | None", label or None),
            kind,
            row.get("mask", ""),
            checked_kind(row.get("part", ""), file, line),
        )
        if name in own:
            raise AnnotationError(file, line, f"{name}: a second row without a box; give one")
        own[name] = said
    return [
        _joined(own.get(name) or Entry(name, "ng", held[0].kind), held)
        for name, held in boxes.items()
    ]


def rows_of_csv(
    data: bytes, file: str, *, need: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the fields (without blanks around them) of each row of a CSV.

    Raises:
        AnnotationError: When it is no CSV, a column of ``need`` is missing, or a row has another
            number of fields than the header.
    """
    reader = csv.reader(io.StringIO(decoded(data, file), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        lacking = [name for name in need if name not in header]
        if lacking or len(set(header)) < len(header):
            what = f"lacks the column {lacking[0]}" if lacking else "has a column twice"
            raise AnnotationError(file, 1, f"{what}; its first line is {','.join(header)[:200]!r}")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                what = f"{len(fields)} fields, but {len(header)} columns"
                raise AnnotationError(file, reader.line_num, what)
            if max(map(len, fields)) > MAX_FIELD:
                what = f"a field of more than {MAX_FIELD:,} characters"
                raise AnnotationError(file, reader.line_num, what)
            yield reader.line_num, dict(zip(header, (f.strip() for f in fields), strict=True))
    except csv.Error as error:
        raise AnnotationError(file, reader.line_num, f"no CSV: {error}") from error


def index_csv(entries: Iterable[Entry]) -> str:
    """Return the index of images as CSV."""
    held = io.StringIO(newline="")
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        label = entry.label or ""
        writer.writerow([entry.image, label, entry.kind, entry.mask, entry.part, *[""] * 4])
        for box in entry.boxes:
            corners = (box.left, box.top, box.right, box.bottom)
            texts = (repr(float(v)).removesuffix(".0") for v in corners)
            writer.writerow([entry.image, label, box.kind, "", "", *texts])
    return held.getvalue()


def _joined(entry: Entry, boxes: list[Box]) -> Entry:
    return Entry(entry.image, entry.label, entry.kind, entry.mask, entry.part, tuple(boxes))
