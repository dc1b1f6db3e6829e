"""Boxes of the COCO form: one JSON file for many images (Lin et al., ECCV 2014)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tasks.defects.data.annotation import (
    MAX_BOXES,
    Annotation,
    AnnotationError,
    checked_box,
    checked_kind,
    decoded,
    require_size,
)
from tasks.defects.samples import Box

MAX_BYTES = 32 << 20


def parse_coco(data: bytes, file: str) -> list[Annotation]:
    """Return the boxes of each image of a COCO file, in its order.

    Boxes are ``[left, top, width, height]``, edges that count from 0. Polygons, crowds and areas
    are left aside. An image without boxes is among them: somebody looked and found nothing.

    Args:
        data: The bytes of the file.
        file: Its name, for errors, which name the line where JSON is broken and the entry else.

    Raises:
        AnnotationError: When it is too large or too deep, no JSON, no COCO, or an entry is wrong.
    """
    require_size(data, MAX_BYTES, file)
    whole = read_json(data, file)
    if not isinstance(whole, dict) or not isinstance(whole.get("images"), list):
        raise AnnotationError(file, 0, "no COCO: an object with a list of images is expected")
    kinds = {
        _key(entry, "id", file, f"categories[{i}]"): checked_kind(
            _text(entry, "name", file, f"categories[{i}]"), file, 0
        )
        for i, entry in enumerate(_list(whole, "categories", file))
    }
    images: dict[int | str, tuple[str, tuple[int, int] | None]] = {}
    for i, entry in enumerate(_list(whole, "images", file)):
        where = f"images[{i}]"
        key = _key(entry, "id", file, where)
        if key in images:
            raise AnnotationError(file, 0, f"{where}: id {key} occurs twice; give each its own")
        images[key] = _text(entry, "file_name", file, where), _size(entry)
    boxes: dict[int | str, list[Box]] = {key: [] for key in images}
    for i, entry in enumerate(_list(whole, "annotations", file)):
        where = f"annotations[{i}]"
        image, kind = (_key(entry, name, file, where) for name in ("image_id", "category_id"))
        if image not in boxes or kind not in kinds:
            what = f"image_id {image}" if image not in boxes else f"category_id {kind}"
            raise AnnotationError(file, 0, f"{where}: {what} is not listed in the file")
        if len(boxes[image]) >= MAX_BOXES:
            raise AnnotationError(file, 0, f"{where}: more than {MAX_BOXES:,} boxes of one image")
        boxes[image].append(_box(entry, kinds[kind], file, where))
    return [Annotation(name, tuple(boxes[key]), size) for key, (name, size) in images.items()]


def read_json(data: bytes, file: str) -> Any:
    """Return what strict JSON holds.

    Raises:
        AnnotationError: When it is broken or too deep, with the line; NaN and infinity are refused.
    """

    def constant(name: str) -> NoReturn:
        raise AnnotationError(file, 0, f"{name} is no number of JSON; write a finite one")

    try:
        return json.loads(decoded(data, file), parse_constant=constant)
    except json.JSONDecodeError as error:
        raise AnnotationError(file, error.lineno, f"no whole JSON: {error.msg}") from error
    except RecursionError as error:
        raise AnnotationError(file, 0, "nested too deeply to be an annotation") from error
    except ValueError as error:  # an integer of thousands of digits
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(file, 0, str(error)) from error


def _box(entry: Any, kind: str, file: str, where: str) -> Box:
    sides = entry.get("bbox")
    if (
        not isinstance(sides, list)
        or len(sides) != 4
        or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in sides)
    ):
        raise AnnotationError(file, 0, f"{where}: bbox must be [left, top, width, height]")
    try:
        left, top, width, height = (float(v) for v in sides)
        return checked_box((left, top, left + width, top + height), kind, file, 0)
    except OverflowError as error:
        raise AnnotationError(file, 0, f"{where}: bbox is beyond every image") from error
    except AnnotationError as error:
        raise AnnotationError(file, 0, f"{where}: {error.what}") from error


def _list(whole: dict[str, Any], name: str, file: str) -> list[Any]:
    held = whole.get(name, [])
    if not isinstance(held, list):
        raise AnnotationError(file, 0, f"{name} must be a list")
    for i, entry in enumerate(held):
        if not isinstance(entry, dict):
            raise AnnotationError(file, 0, f"{name}[{i}] must be an object")
    return held


def _key(entry: dict[str, Any], name: str, file: str, where: str) -> int | str:
    held = entry.get(name)
    if not isinstance(held, int | str) or isinstance(held, bool):
        raise AnnotationError(file, 0, f"{where}: {name} must be a number or a text")
    return held


def _text(entry: dict[str, Any], name: str, file: str, where: str) -> str:
    held = entry.get(name)
    if not isinstance(held, str):
        raise AnnotationError(file, 0, f"{where}: {name} must be a text")
    return held


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) >= 1:
        return width, height
    return None
