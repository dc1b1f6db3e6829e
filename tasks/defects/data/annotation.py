"""What an annotation file says of one image, whatever its format; and the error of a bad one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.defects.data.shapes import Shape
from tasks.defects.samples import Box, SampleError

MAX_KIND = 200
"""Characters of a defect type's name."""
MAX_BOXES = 10_000
"""Boxes of one image; more are no annotation of people."""


class AnnotationError(ValueError):
    """An annotation that cannot be used.

    Attributes:
        file: Which file, as the caller named it.
        line: Line in it, from 1; 0 where it has none.
        what: What is wrong, and how to mend it.
    """

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}" if line else f"{file}: {what}")
        self.file, self.line, self.what = file, line, what


@dataclass(frozen=True, slots=True)
class Annotation:
    """The boxes of one image, and what was drawn of the defects.

    Attributes:
        image: Path or name of the image as the file gives it, "" where it gives none. A stranger
            wrote it: it is looked up among the names of a listing, never opened.
        boxes: In pixels of the image as it is stored, or as it is shown: see `size`.
        size: Width and height that the file says the image has, None where it says nothing.
        shapes: Of each box, in the same pixels: outlines or runs, none where only a box is given.
            ``()`` where no box has any.
    """

    image: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    shapes: tuple[tuple[Shape, ...], ...] = ()


def checked_box(corners: tuple[float, float, float, float], kind: str, file: str, line: int) -> Box:
    """Return a box of finite corners (left, top, right, bottom) with a printable type.

    Raises:
        AnnotationError: Where it is none.
    """
    if not all(math.isfinite(value) for value in corners):
        raise AnnotationError(file, line, f"box {corners} has a corner that is no finite number")
    name = checked_kind(kind, file, line)
    try:
        return Box(*corners, kind=name)
    except SampleError as error:
        raise AnnotationError(file, line, str(error)) from error


def checked_kind(kind: str, file: str, line: int) -> str:
    """Return the name of a type without blanks around it.

    Raises:
        AnnotationError: Where it is too long or not printable.
    """
    kind = kind.strip()
    if len(kind) > MAX_KIND or not kind.isprintable():
        raise AnnotationError(
            file, line, f"type {kind[:40]!r}: use a printable name of up to {MAX_KIND} characters"
        )
    return kind


def number(text: str, name: str, file: str, line: int) -> float:
    """Return a finite number.

    Raises:
        AnnotationError: Where it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AnnotationError(file, line, f"{name} is {text[:40]!r}; give a finite number")
    return value


def require_size(data: bytes, most: int, file: str) -> None:
    """Refuse a file that is too large to be parsed.

    Raises:
        AnnotationError: When it is.
    """
    if len(data) > most:
        raise AnnotationError(
            file, 0, f"{len(data):,} bytes; an annotation may have {most:,}: split it"
        )


def decoded(data: bytes, file: str) -> str:
    """Return the text of a UTF-8 file without a byte order mark.

    Raises:
        AnnotationError: When it is no UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise AnnotationError(file, line, "not UTF-8; save it as UTF-8") from error
