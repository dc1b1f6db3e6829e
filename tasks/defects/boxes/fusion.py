"""One box of several that mean the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.boxes.iou import Edges, pairwise_iou


def non_maximum_suppression(
    edges: Edges, scores: NDArray[np.float64], limit: float
) -> NDArray[np.intp]:
    """Return the places of the boxes that are kept, best first (non-maximum suppression).

    Args:
        edges: float64 [n, 4].
        scores: float64 [n].
        limit: Intersection over union with a better box above which a box is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    overlaps = pairwise_iou(edges[order], edges[order]) > limit
    kept = np.ones(len(order), dtype=np.bool_)
    for place in range(len(order)):
        if kept[place]:
            kept[place + 1 :] &= ~overlaps[place, place + 1 :]
    return order[kept]


def weighted_box_fusion(
    edges: Edges, scores: NDArray[np.float64], limit: float, views: int
) -> tuple[Edges, NDArray[np.float64]]:
    """Return one box for each group of boxes of several views, weighted by their scores.

    Weighted box fusion (Solovyev et al., Image and Vision Computing 107, 2021): each box joins the
    group whose mean it overlaps most; a group that only some views see is believed less.

    Args:
        edges: float64 [n, 4].
        scores: float64 [n], above 0.
        limit: Intersection over union from which a box belongs to a group.
        views: Of one image, that the boxes are from.
    """
    means = np.zeros((0, 4))
    sums: list[NDArray[np.float64]] = []
    weights: list[list[float]] = []
    for place in np.argsort(-scores, kind="stable"):
        overlap = pairwise_iou(edges[[place]], means)[0] if len(means) else np.zeros(0)
        group = int(overlap.argmax()) if len(overlap) else -1
        if group < 0 or overlap[group] <= limit:
            means = np.concatenate([means, edges[[place]]])
            sums.append(scores[place] * edges[place])
            weights.append([float(scores[place])])
            continue
        sums[group] = sums[group] + scores[place] * edges[place]
        weights[group].append(float(scores[place]))
        means[group] = sums[group] / sum(weights[group])
    told = np.array([sum(sorted(each)[-views:]) / views for each in weights], np.float64)
    order = np.argsort(-told, kind="stable")
    return means[order], told[order]
