"""What a form of the page says: which images, what of them, and the boxes drawn on one."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from connectors.defects.labelling.history import MAX_BOXES, LabelError, Said, checked_kind
from tasks.defects.samples import Box

CORNERS = ("left", "top", "right", "bottom")
PER_GRID = 24
MAX_FIELDS = 5 * MAX_BOXES + 3 * PER_GRID + 20


@dataclass(frozen=True, slots=True)
class One:
    """What a person says of one image.

    Attributes:
        said: ``ok``, ``ng`` or ``unsure``.
        kind: Type of the defect, "".
        boxes: Rectangles of defects.
    """

    said: Said
    kind: str = ""
    boxes: tuple[Box, ...] = ()

    def __str__(self) -> str:
        """Return it for people."""
        what = {"ok": "OK", "ng": f"NG, {self.kind}" if self.kind else "NG"}
        return what.get(self.said, "left, unsure")


def one_of(fields: Mapping[str, str], size: tuple[int, int]) -> One:
    """Return what the form of one image says.

    Args:
        fields: Of the form; the button is called ``do``: ``ok``, ``ng``, ``unsure``, ``kind:NAME``,
            or ``enter`` where the key was pressed within a field.
        size: Width and height of the image.

    Raises:
        LabelError: When it says nothing that can be.
    """
    do, _, kind = fields.get("do", "").partition(":")
    new = checked_kind(fields.get("new", ""))
    if do in {"enter", "ng"} and new:
        do, kind = "kind", new
    if do in {"ok", "unsure"}:
        if boxes_of(fields, size):
            raise LabelError("there are boxes on the image; take them away, or press NG")
        return One("ok" if do == "ok" else "unsure")
    if do not in {"ng", "kind"}:
        raise LabelError("press OK, NG or a type; Enter alone takes the new type's name")
    boxes = boxes_of(fields, size)
    kind = checked_kind(kind)
    named = {box.kind for box in boxes}
    if not kind and len(named) == 1:
        kind = named.pop()
    return One("ng", kind, tuple(replace(box, kind=box.kind or kind) for box in boxes))


def boxes_of(fields: Mapping[str, str], size: tuple[int, int]) -> tuple[Box, ...]:
    """Return the boxes of a form, cut at the edges of the image.

    Raises:
        LabelError: When one is half filled in, no number, or lies outside of the image.
    """
    found = []
    for number in range(MAX_BOXES):
        texts = [fields.get(f"{corner}-{number}", "").strip() for corner in CORNERS]
        if not any(texts):
            continue
        try:
            left, top, right, bottom = map(float, texts)
        except ValueError:
            left = math.nan
        if not math.isfinite(left) or not all(math.isfinite(v) for v in (top, right, bottom)):
            raise LabelError(f"box {number + 1} needs four numbers, or none")
        left, right = sorted(min(max(x, 0.0), size[0]) for x in (left, right))
        top, bottom = sorted(min(max(y, 0.0), size[1]) for y in (top, bottom))
        if right - left < 1 or bottom - top < 1:
            raise LabelError(f"box {number + 1} holds no pixel of the image")
        found.append(Box(left, top, right, bottom, checked_kind(fields.get(f"kind-{number}", ""))))
    return tuple(found)


def many_of(
    fields: Mapping[str, str], names: Container[str]
) -> tuple[dict[str, Said], dict[str, str]]:
    """Return what the form of the grid says: by image, and ids of the decisions seen.

    Args:
        fields: Of the form.
        names: Images that there are.

    Raises:
        LabelError: When it says nothing, or names another image.
    """
    do = fields.get("do", "")
    if do not in {"rest-ok", "ticked-ok", "ticked-ng"}:
        raise LabelError("press one of the buttons below the images")
    said: dict[str, Said] = {}
    seen: dict[str, str] = {}
    for number in range(PER_GRID):
        name = fields.get(f"image-{number}", "")
        if not name:
            continue
        if name not in names:
            raise LabelError(f"{name!r} is not there; reload the page")
        ticked = f"tick-{number}" in fields
        if do == "rest-ok":
            said[name] = "ng" if ticked else "ok"
        elif ticked:
            said[name] = "ok" if do == "ticked-ok" else "ng"
        seen[name] = fields.get(f"seen-{number}", "")
    if not said:
        raise LabelError("no image is ticked")
    return said, {name: seen[name] for name in said}
