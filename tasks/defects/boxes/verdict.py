"""Boxes beside a verdict: those of the detector of boxes in place of the heat map's contours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tasks.defects.boxes.average_precision import edges_of
from tasks.defects.boxes.iou import pairwise_iou
from tasks.defects.judgement import UNKNOWN, Judgement
from tasks.defects.samples import Box


def boxed(said: Judgement, found: Sequence[Box], told: float) -> Judgement:
    """Return a judgement with the boxes that were found; score, verdict and types stay as they are.

    What is OK stays as it was. Else boxes take the place of the contours that they touch; a warm
    spot that no box touches keeps its contour, behind them, for it may be why the image is not OK.
    A box keeps the type that it was found as, since an image may show several, but for two cases:
    one without a type takes the verdict's, and where that is "unknown" all do, since who draws
    boxes knows the labelled types alone.

    Args:
        said: By a detector, with contours as boxes.
        found: Boxes of the same image, best first.
        told: Score from which they are told.
    """
    if said.verdict == "OK":
        return said
    kind = said.kind
    boxes = [
        replace(box, kind=kind if kind == UNKNOWN else box.kind or kind)
        for box in found
        if box.score >= told
    ]
    shared = pairwise_iou(edges_of(said.boxes), edges_of(boxes))
    apart = [box for box, row in zip(said.boxes, shared, strict=True) if not row.any()]
    return replace(said, boxes=(*boxes, *apart))
