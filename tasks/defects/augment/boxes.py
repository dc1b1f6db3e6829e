"""What becomes of a sample, and of its boxes, when only a part of it is left."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tasks.defects.samples import Box, Label, Mask, Sample

LEAST_VISIBLE = 0.25
"""Share of its area that must be left of a box."""
LEAST_SIDE = 2.0
"""Pixels that must be left of each of its sides."""


class Augmented(NamedTuple):
    """A sample made of others, by something that moves boxes.

    Attributes:
        sample: The new one; ``ok`` where nothing is left of the defects. Its part is none of those
            that it was made of, so split by parts before.
        dropped: Boxes of which too little was left (`cut`); that little still is in the image.
    """

    sample: Sample
    dropped: int


def cut(box: Box, left: float, top: float, right: float, bottom: float) -> Box | None:
    """Return what a frame shows of a box, None where that is too little to be called a defect.

    A box that lies inside is returned as it is, however small. One that is cut is dropped when
    less than a quarter of its area, or less than two pixels of a side, is left.
    """
    if left <= box.left and top <= box.top and box.right <= right and box.bottom <= bottom:
        return box
    edges = (max(box.left, left), max(box.top, top), min(box.right, right), min(box.bottom, bottom))
    wide, tall = edges[2] - edges[0], edges[3] - edges[1]
    if min(wide, tall) < LEAST_SIDE:
        return None
    if wide * tall < LEAST_VISIBLE * (box.right - box.left) * (box.bottom - box.top):
        return None
    return replace(box, left=edges[0], top=edges[1], right=edges[2], bottom=edges[3])


def shifted(box: Box, down: float, right: float) -> Box:
    """Return the box, moved."""
    return replace(
        box,
        left=box.left + right,
        top=box.top + down,
        right=box.right + right,
        bottom=box.bottom + down,
    )


def touches(box: Box, left: float, top: float, right: float, bottom: float) -> bool:
    """Return whether a frame shows anything of a box."""
    return box.left < right and box.right > left and box.top < bottom and box.bottom > top


def label_left(label: Label | None, mask: Mask | None, boxes: int) -> Label | None:
    """Return the label of a part of an image.

    Args:
        label: Of the whole.
        mask: What is left of the defect's, None where nobody drew one: then it may be shown.
        boxes: Number of boxes of which anything is left.
    """
    gone = mask is not None and not mask.any() and not boxes
    return "ok" if label == "ng" and gone else label
