"""Brings together what folders, annotations, masks and copies say of an image, or refuses it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.defects.samples import Box, Label

MOST_OUTSIDE = 1.0
"""Pixels by which a box may reach out of its image: those are roundings, and clipped."""


class Conflict(ValueError):  # noqa: N818 - a verdict on data, told in a quarantine record
    """What is said of an image contradicts itself.

    Attributes:
        rule: Stable id for the quarantine record.
        observed: What was found.
        expected: What would have been right.
    """

    def __init__(self, rule: str, observed: str, expected: str) -> None:
        super().__init__(f"{rule}: {observed}")
        self.rule, self.observed, self.expected = rule, observed, expected


def settled(
    label: Label | None, kind: str, boxes: Sequence[Box] | None, marked: int | None
) -> tuple[Label | None, str]:
    """Return the label and the type of an image.

    Args:
        label: What its folder or index says.
        kind: The type that its folder or index says, "".
        boxes: Of its annotation, None without one; an annotation without boxes means that somebody
            looked and found nothing.
        marked: Pixels that its mask marks, None without a mask.

    Raises:
        Conflict: When it is said to be good, but has a defect.
    """
    if label == "ok" and (boxes or marked):
        has = f"{len(boxes)} boxes" if boxes else f"a mask of {marked:,} pixels"
        raise Conflict("ok-with-defect", f"labelled ok, but {has}", "a label that fits")
    if label is None:
        if boxes or marked:
            label = "ng"
        elif boxes is not None or marked is not None:
            label = "ok"
    if label == "ng" and not kind and boxes:
        kind = main_kind(boxes)
    return label, kind


def main_kind(boxes: Sequence[Box]) -> str:
    """Return the type whose boxes cover most, the first by name of several; "" without one."""
    areas: dict[str, float] = defaultdict(float)
    for box in boxes:
        if box.kind:
            areas[box.kind] += (box.right - box.left) * (box.bottom - box.top)
    return min(areas, key=lambda kind: (-areas[kind], kind), default="")


def fitted_box(box: Box, width: int, height: int) -> Box:
    """Return a box within its image, clipped by a pixel at most.

    Raises:
        Conflict: When it reaches further out, or lies outside.
    """
    over = max(-box.left, -box.top, box.right - width, box.bottom - height)
    left, top = max(box.left, 0.0), max(box.top, 0.0)
    right, bottom = min(box.right, float(width)), min(box.bottom, float(height))
    if over > MOST_OUTSIDE or left >= right or top >= bottom:
        corners = f"{box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g}"
        raise Conflict("box-outside", f"box {corners}", f"within {width} x {height} pixels")
    return replace(box, left=left, top=top, right=right, bottom=bottom)


@dataclass(frozen=True, slots=True)
class Seen:
    """An image for the judgement of copies.

    Attributes:
        name: Path within the dataset.
        digest: Of its pixels.
        label: ``ok``, ``ng`` or None.
        kind: Type of the defect, "".
        known: How much else is known of it (mask, boxes): of equal copies the best known stays.
    """

    name: str
    digest: str
    label: Label | None
    kind: str
    known: int = 0


def copies(images: Sequence[Seen]) -> tuple[dict[int, Conflict], dict[int, int]]:
    """Judge images with the same pixels.

    Returns:
        Places of images with two labels or types, all copies of them, with the conflict; and
        places of images that repeat one -> place of the one that stays. Copies that nobody labelled
        contradict none.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        groups[image.digest].append(place)
    conflicts: dict[int, Conflict] = {}
    repeats: dict[int, int] = {}
    for places in groups.values():
        if len(places) == 1:
            continue
        labels = {images[i].label for i in places} - {None}
        kinds = {images[i].kind for i in places} - {""}
        if len(labels) > 1 or len(kinds) > 1:
            said = "; ".join(_said(images[i]) for i in places[:4])
            conflicts |= {
                i: Conflict("two-labels", f"the same picture: {said}", "one label per picture")
                for i in places
            }
            continue
        first = min(places, key=lambda i: (-_known(images[i]), images[i].name))
        repeats |= {i: first for i in places if i != first}
    return conflicts, repeats


def _known(image: Seen) -> int:
    return 4 * (image.label is not None) + 4 * bool(image.kind) + image.known


def _said(image: Seen) -> str:
    return f"{image.name} is {image.kind or image.label or 'not labelled'}"
