"""Boxes of the YOLO form: a text file per image, and a file with the names of the types.

A line is ``class centre-x centre-y width height``, all but the class as shares of the image's
sides; with more numbers it is ``class x1 y1 x2 y2 ...``, a polygon, with the box around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tasks.defects.data.annotation import (
    MAX_BOXES,
    Annotation,
    AnnotationError,
    checked_box,
    checked_kind,
    decoded,
    number,
    require_size,
)
from tasks.defects.data.shapes import Outline, Shape
from tasks.defects.samples import Box

MAX_BYTES = 4 << 20
MAX_NAMES = 10_000
OUTSIDE = 1.5
"""Shares beyond -0.5 to 1.5 are no shares but pixels."""


def parse_yolo(data: bytes, file: str, names: Sequence[str], size: tuple[int, int]) -> Annotation:
    """Return the boxes and outlines of an image.

    Args:
        data: The bytes of the file; without a line the image has no defect.
        file: Its name, for errors.
        names: Types by number; where there is none, the number is the type's name.
        size: Width and height of the image that the shares are of.

    Raises:
        AnnotationError: With the line, when the file is too large or a line is no box.
    """
    require_size(data, MAX_BYTES, file)
    boxes: list[Box] = []
    shapes: list[tuple[Shape, ...]] = []
    for line, text in enumerate(decoded(data, file).splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        if len(boxes) >= MAX_BOXES:
            raise AnnotationError(file, line, f"more than {MAX_BOXES:,} boxes")
        kind = _kind(fields[0], names, file, line)
        shares = [number(field, "a share", file, line) for field in fields[1:]]
        if any(not 1 - OUTSIDE <= share <= OUTSIDE for share in shares):
            raise AnnotationError(
                file, line, "a number is no share of the image; give 0 to 1, not pixels"
            )
        boxes.append(checked_box(_corners(shares, size, file, line), kind, file, line))
        points = np.array(shares, np.float64).reshape(-1, 2) * np.array(size, np.float64)
        shapes.append((Outline(points),) if len(points) > 2 else ())
    return Annotation("", tuple(boxes), size, tuple(shapes) if any(shapes) else ())


def _corners(
    shares: Sequence[float], size: tuple[int, int], file: str, line: int
) -> tuple[float, float, float, float]:
    width, height = size
    if len(shares) == 4:
        x, y, w, h = shares
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        left, right = min(shares[::2]), max(shares[::2])
        top, bottom = min(shares[1::2]), max(shares[1::2])
    else:
        raise AnnotationError(
            file, line, f"{len(shares) + 1} fields; give class, centre x and y, width, height"
        )
    return left * width, top * height, right * width, bottom * height


def _kind(text: str, names: Sequence[str], file: str, line: int) -> str:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise AnnotationError(file, line, f"class {text[:40]!r} is no number from 0")
    if not names:
        return str(int(text))
    if int(text) >= len(names):
        raise AnnotationError(
            file, line, f"class {text}, but {len(names)} names are given, from 0 on"
        )
    return names[int(text)]


def parse_names(data: bytes, file: str) -> list[str]:
    """Return the names of types of a ``classes.txt`` (one a line) or a ``data.yaml``.

    Of YAML only ``names:`` is read, as a list in brackets, a list of dashes, or numbers with
    names; the rest of the file is left aside.

    Raises:
        AnnotationError: When there are no names, or they stand in another form.
    """
    require_size(data, MAX_BYTES, file)
    lines = decoded(data, file).splitlines()
    if file.lower().endswith((".yaml", ".yml")):
        names = _yaml_names(lines, file)
    else:
        names = [line.strip() for line in lines]
        while names and not names[-1]:
            names.pop()
    if not names or not all(names) or len(names) > MAX_NAMES:
        raise AnnotationError(file, 0, f"give 1 to {MAX_NAMES:,} names of types, none empty")
    return [checked_kind(name, file, 0) for name in names]


def _yaml_names(lines: Sequence[str], file: str) -> list[str]:
    starts = [i for i, line in enumerate(lines) if re.match(r"names\s*:", line)]
    if len(starts) != 1:
        raise AnnotationError(file, 0, f"{len(starts)} lines 'names:'; give one")
    start = starts[0]
    rest = _uncommented(lines[start].partition(":")[2]).lstrip()
    following = [_uncommented(line) for line in lines[start + 1 :]]
    if rest.startswith(("[", "{")):
        return _flow_names(rest, following, file, start + 1)
    if rest:
        raise AnnotationError(file, start + 1, "names: give a list, or numbers with names")
    numbered: dict[int, str] = {}
    for line, text in enumerate(following, start + 2):
        if not text:
            continue
        item = re.fullmatch(r"(?:\s*-\s+|\s+([0-9]{1,6})\s*:\s+)(.*)", text)
        if item is None:
            if text[0].isspace() or text.startswith("-"):
                raise AnnotationError(file, line, f"{text.strip()[:40]!r} is no name of the list")
            break
        place = len(numbered) if item[1] is None else int(item[1])
        if place in numbered:
            raise AnnotationError(file, line, f"number {place} has two names")
        numbered[place] = _unquoted(item[2])
    return _in_order(numbered, file, start + 1)


def _flow_names(rest: str, following: Sequence[str], file: str, line: int) -> list[str]:
    closing = "]" if rest[0] == "[" else "}"
    lines = [rest]
    for more in following:
        if lines[-1].endswith(closing):
            break
        lines.append(more.strip())
    if not lines[-1].endswith(closing):
        raise AnnotationError(file, line, f"names: no {closing} ends the list")
    items = _items(" ".join(lines)[1:-1])
    if closing == "]":
        return [_unquoted(item) for item in items]
    numbered: dict[int, str] = {}
    for item in items:
        key, _, name = item.partition(":")
        if not re.fullmatch(r"[0-9]{1,6}", key.strip()) or int(key) in numbered:
            raise AnnotationError(file, line, f"names: {item[:40]!r} is no number with a name")
        numbered[int(key)] = _unquoted(name)
    return _in_order(numbered, file, line)


def _items(text: str) -> list[str]:
    """Return what stands between the commas outside of quotes; a last comma may end the list."""
    items: list[str] = []
    start, quote, before = 0, "", ","
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and before in ",:":  # elsewhere it belongs to a word
            quote = letter
        elif letter == ",":
            items.append(text[start:i])
            start = i + 1
        before = before if letter.isspace() else letter
    last = text[start:]
    return [*items, last] if last.strip() else items


def _in_order(numbered: dict[int, str], file: str, line: int) -> list[str]:
    if sorted(numbered) != list(range(len(numbered))):
        raise AnnotationError(file, line, "names: numbers must run from 0 without a gap")
    return [numbered[place] for place in range(len(numbered))]


def _uncommented(text: str) -> str:
    """Return a line of YAML without its comment and the blanks at its end."""
    held = re.match(r"""(?:"[^"]*"|'[^']*'|(?<=\S)#|[^#])*""", text)
    return held[0].rstrip() if held else ""


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
