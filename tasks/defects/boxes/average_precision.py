"""How well boxes are found: average precision per type, and its mean over the types.

As COCO and PASCAL VOC since 2010 do: over all images at once, boxes in order of their scores, each
matched to the labelled box of its type that it overlaps most among those not yet matched; the area
under the precision that is reached at each recall or a higher one, at all points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.defects.boxes.iou import Edges, pairwise_iou
from tasks.defects.samples import Box


class Matched(NamedTuple):
    """The boxes of one type that are told of one image.

    Attributes:
        right: bool [n], whether each is a match.
        scores: float64 [n].
        wanted: Labelled boxes of the type.
    """

    right: NDArray[np.bool_]
    scores: NDArray[np.float64]
    wanted: int


def average_precisions(
    found: Sequence[Sequence[Box]], labelled: Sequence[Sequence[Box]], overlap: float = 0.5
) -> dict[str, float]:
    """Return type -> average precision, for each type that is labelled at least once.

    Args:
        found: Boxes told of each image.
        labelled: Boxes that people drew in each.
        overlap: Least intersection over union of a match.

    Raises:
        ValueError: Lists of unlike lengths, or no labelled box at all.
    """
    if len(found) != len(labelled):
        raise ValueError(f"{len(found)} images judged, {len(labelled)} labelled; give all of both")
    kinds = sorted({box.kind for boxes in labelled for box in boxes})
    if not kinds:
        raise ValueError("no labelled box: average precision needs at least one")
    pairs = list(zip(found, labelled, strict=True))
    return {
        kind: average_precision([matched(told, true, kind, overlap) for told, true in pairs])
        for kind in kinds
    }


def mean_average_precision(
    found: Sequence[Sequence[Box]], labelled: Sequence[Sequence[Box]], overlap: float = 0.5
) -> float:
    """Return the mean over the types of `average_precisions`."""
    return float(np.mean(list(average_precisions(found, labelled, overlap).values())))


def area_under(right: NDArray[np.bool_], scores: NDArray[np.float64], wanted: int) -> float:
    """Return the area under precision and recall at all points.

    Args:
        right: bool [n], whether each box is a match.
        scores: float64 [n]; boxes of one score count as told at once, whatever their order.
        wanted: Labelled boxes.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    told = np.arange(1, len(order) + 1)
    last = np.append(np.diff(scores[order]) != 0, True)[: len(order)]
    recall, precision = hits[last] / wanted, hits[last] / told[last]
    reached = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * reached).sum())


def edges_of(boxes: Sequence[Box]) -> Edges:
    """Return float64 [n, 4] of boxes."""
    rows = [(box.left, box.top, box.right, box.bottom) for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def average_precision(each: Sequence[Matched]) -> float:
    """Return the average precision of a type over images, of which one at least is labelled so."""
    right = np.concatenate([one.right for one in each])
    scores = np.concatenate([one.scores for one in each])
    return area_under(right, scores, sum(one.wanted for one in each))


def matched(found: Sequence[Box], labelled: Sequence[Box], kind: str, overlap: float) -> Matched:
    """Match the boxes of a type that are told of an image to those that are labelled."""
    mine = sorted((box for box in found if box.kind == kind), key=lambda box: -box.score)
    true = [box for box in labelled if box.kind == kind]
    shared = pairwise_iou(edges_of(mine), edges_of(true))
    free = np.ones(len(true), dtype=np.bool_)
    right = np.zeros(len(mine), dtype=np.bool_)
    for place, row in enumerate(shared):
        open_ones = np.where(free, row, 0.0)
        best = int(open_ones.argmax()) if len(row) else -1
        if best >= 0 and open_ones[best] >= overlap:
            free[best], right[place] = False, True
    return Matched(right, np.array([box.score for box in mine], np.float64), len(true))
