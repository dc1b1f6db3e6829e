"""Boxes and masks of the COCO form: one JSON file for many images (Lin et al., ECCV 2014)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np

from tasks.defects.data.annotation import (
    MAX_BOXES,
    Annotation,
    AnnotationError,
    checked_box,
    checked_kind,
    decoded,
    require_size,
)
from tasks.defects.data.shapes import Outline, Runs, Shape, ShapeError, unpacked
from tasks.defects.samples import Box

MAX_BYTES = 32 << 20
MAX_SIDE = 1 << 20
"""Of runs; larger ones are of no image."""


def parse_coco(data: bytes, file: str) -> list[Annotation]:
    """Return the boxes and shapes of each image of a COCO file, in its order.

    Boxes are ``[left, top, width, height]``, edges that count from 0. A ``segmentation`` is a list
    of polygons, or runs (plain or compressed), of crowds as well; without a ``bbox`` its extent is
    the box. Areas are left aside: they follow. An image without boxes is among them: somebody
    looked and found nothing.

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
    shapes: dict[int | str, list[tuple[Shape, ...]]] = {key: [] for key in images}
    for i, entry in enumerate(_list(whole, "annotations", file)):
        where = f"annotations[{i}]"
        image, kind = (_key(entry, name, file, where) for name in ("image_id", "category_id"))
        if image not in boxes or kind not in kinds:
            what = f"image_id {image}" if image not in boxes else f"category_id {kind}"
            raise AnnotationError(file, 0, f"{where}: {what} is not listed in the file")
        if len(boxes[image]) >= MAX_BOXES:
            raise AnnotationError(file, 0, f"{where}: more than {MAX_BOXES:,} boxes of one image")
        found = _shapes(entry, file, where)
        boxes[image].append(_box(entry, found, kinds[kind], file, where))
        shapes[image].append(found)
    return [
        Annotation(name, tuple(boxes[key]), size, tuple(shapes[key]) if any(shapes[key]) else ())
        for key, (name, size) in images.items()
    ]


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


def _shapes(entry: Any, file: str, where: str) -> tuple[Shape, ...]:
    held = entry.get("segmentation")
    try:
        if isinstance(held, dict):
            return (_runs(held),)
        return tuple(_outline(one) for one in _list_of_polygons(held))
    except (ShapeError, OverflowError) as error:
        raise AnnotationError(file, 0, f"{where}: segmentation: {error}") from error


def _list_of_polygons(held: Any) -> list[Any]:
    if not isinstance(held, list | None):
        raise ShapeError("must be polygons or runs")
    return held or []


def _outline(held: Any) -> Outline:
    if not _numbers(held) or len(held) < 6 or len(held) % 2:
        raise ShapeError("a polygon is [x, y, x, y, ...] of at least three corners")
    points = np.array(held, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max() > MAX_SIDE:
        raise ShapeError("a corner is beyond every image")
    return Outline(points)


def _runs(held: dict[str, Any]) -> Runs:
    size, counts = held.get("size"), held.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(_whole(side) for side in size)):
        raise ShapeError("size must be [height, width]")
    if isinstance(counts, str):
        return Runs(size[0], size[1], unpacked(counts))
    if not (isinstance(counts, list) and all(_whole(count, MAX_SIDE**2) for count in counts)):
        raise ShapeError("counts must be a list of numbers from 0, or a text")
    return Runs(size[0], size[1], np.array(counts, np.int64))


def _whole(value: Any, most: int = MAX_SIDE) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _numbers(held: Any) -> bool:
    return isinstance(held, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in held
    )


def _box(entry: Any, shapes: tuple[Shape, ...], kind: str, file: str, where: str) -> Box:
    sides = entry.get("bbox")
    try:
        if sides is None and shapes:
            each = np.array([shape.extent() for shape in shapes])
            corners = (*each[:, :2].min(axis=0).tolist(), *each[:, 2:].max(axis=0).tolist())
            return checked_box(corners, kind, file, 0)
    except ShapeError as error:
        raise AnnotationError(file, 0, f"{where}: segmentation: {error}") from error
    except AnnotationError as error:
        raise AnnotationError(file, 0, f"{where}: {error.what}") from error
    if not _numbers(sides) or len(sides) != 4:
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
