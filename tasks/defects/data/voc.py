"""Boxes of the PASCAL VOC form: one XML file per image (Everingham et al., IJCV 88, 2010).

Read by expat's events, so that neither a tree is built nor an entity expanded: a file with a
document type, which nothing in this form needs, is refused when it begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from xml.parsers import expat  # safe: document types, and so entities, are refused

from tasks.defects.data.annotation import (
    MAX_BOXES,
    Annotation,
    AnnotationError,
    checked_box,
    number,
    require_size,
)
from tasks.defects.samples import Box

MAX_BYTES = 4 << 20
MAX_DEPTH = 16
MAX_TEXT = 4_096
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = ("annotation", "object")
WANTED = {
    ("annotation", "filename"),
    *(("annotation", "size", side) for side in ("width", "height")),
    (*OBJECT, "name"),
    *((*OBJECT, "bndbox", corner) for corner in CORNERS),
}


_Fields = dict[str, tuple[str, int]]
"""Element -> its text and its line."""


@dataclass
class _Reader:
    """What expat met so far."""

    file: str
    parser: Any
    path: list[str] = field(default_factory=list)
    text: str = ""
    found: _Fields = field(default_factory=dict)
    object: _Fields = field(default_factory=dict)
    objects: list[tuple[_Fields, int]] = field(default_factory=list)

    def wrong(self, what: str) -> AnnotationError:
        return AnnotationError(self.file, self.parser.CurrentLineNumber, what)

    def doctype(self, *_: Any) -> None:
        raise self.wrong("has a document type; delete the line <!DOCTYPE ...>")

    def start(self, name: str, _: Any) -> None:
        self.path.append(name)
        self.text = ""
        if len(self.path) > MAX_DEPTH:
            raise self.wrong(f"elements lie more than {MAX_DEPTH} deep; this is no VOC annotation")
        if self.path[0] != "annotation":
            raise self.wrong(f"begins with <{name[:40]}>; a VOC file begins with <annotation>")
        if tuple(self.path) == OBJECT:
            self.object = {}
            if len(self.objects) >= MAX_BOXES:
                raise self.wrong(f"more than {MAX_BOXES:,} boxes")

    def characters(self, text: str) -> None:
        if tuple(self.path) in WANTED:
            self.text += text
            if len(self.text) > MAX_TEXT:
                raise self.wrong(f"<{self.path[-1]}> holds more than {MAX_TEXT:,} characters")

    def end(self, name: str) -> None:
        path = tuple(self.path)
        line = self.parser.CurrentLineNumber
        if path in WANTED:
            held = self.object if path[: len(OBJECT)] == OBJECT else self.found
            if name in held:
                raise self.wrong(f"a second <{name}>; give one")
            held[name] = self.text.strip(), line
        elif path == OBJECT:
            self.objects.append((self.object, line))
        self.path.pop()
        self.text = ""


def parse_voc(data: bytes, file: str) -> Annotation:
    """Return the boxes of a VOC file.

    Corners of VOC are numbers of pixels that count from 1, the last one inside; here they become
    edges that count from 0. Parts of objects, poses and flags are left aside.

    Args:
        data: The bytes of the file.
        file: Its name, for errors.

    Raises:
        AnnotationError: When it is too large, no XML, no VOC, or a box of it is none.
    """
    require_size(data, MAX_BYTES, file)
    parser = expat.ParserCreate()
    reader = _Reader(file, parser)
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position
    except expat.ExpatError as error:
        raise AnnotationError(file, error.lineno, f"no whole XML: {error}") from error
    except (LookupError, ValueError) as error:  # an encoding that is none
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(file, 1, f"{error}; save it as UTF-8") from error
    sides = [_number(reader.found, side, file, ("0", 0)) for side in ("width", "height")]
    size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None
    boxes = tuple(_box(fields, line, file) for fields, line in reader.objects)
    return Annotation(reader.found.get("filename", ("", 0))[0], boxes, size)


def counted_from_zero(annotation: Annotation, file: str) -> Annotation:
    """Return what `parse_voc` read, for files whose corners are edges that count from 0.

    Raises:
        AnnotationError: When a box holds no pixel then.
    """
    boxes = tuple(
        checked_box((b.left + 1, b.top + 1, b.right, b.bottom), b.kind, file, 0)
        for b in annotation.boxes
    )
    return replace(annotation, boxes=boxes)


def _box(fields: _Fields, line: int, file: str) -> Box:
    left, top, right, bottom = (_number(fields, corner, file, ("", line)) for corner in CORNERS)
    return checked_box(
        (left - 1, top - 1, right, bottom), fields.get("name", ("", 0))[0], file, line
    )


def _number(fields: _Fields, name: str, file: str, absent: tuple[str, int]) -> float:
    text, line = fields.get(name, absent)
    return number(text, name, file, line)
