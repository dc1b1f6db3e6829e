"""How well boxes are found: average precision per type, and its mean over the types.

As COCO and PASCAL VOC since 2010 do: over all images at once, boxes in order of their scores, each
matched to the labelled box of its type that it overlaps most among those not yet matched; the area
under the precision that is reached at each recall or a higher one, at all points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.defects.boxes.iou import Edges, pairwise_iou
from tasks.defects.samples import Box


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
    return {kind: _of_kind(found, labelled, kind, overlap) for kind in kinds}


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


def _of_kind(
    found: Sequence[Sequence[Box]], labelled: Sequence[Sequence[Box]], kind: str, overlap: float
) -> float:
    right: list[bool] = []
    scores: list[float] = []
    wanted = 0
    for told, true in zip(found, labelled, strict=True):
        mine = sorted((b for b in told if b.kind == kind), key=lambda box: -box.score)
        shared = pairwise_iou(edges_of(mine), edges_of([b for b in true if b.kind == kind]))
        wanted += shared.shape[1]
        free = np.ones(shared.shape[1], dtype=np.bool_)
        for row, box in zip(shared, mine, strict=True):
            open_ones = np.where(free, row, 0.0)
            best = int(open_ones.argmax()) if len(row) else -1
            matched = best >= 0 and bool(open_ones[best] >= overlap)
            if matched:
                free[best] = False
            right.append(matched)
            scores.append(box.score)
    return area_under(np.array(right, np.bool_), np.array(scores, np.float64), wanted)
