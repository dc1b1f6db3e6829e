"""Intersection over union of boxes, and one box kept of several that mean the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.float64]
"""float64 [n, 4]: left, top, right, bottom."""


def shared_area(first: Edges, second: Edges) -> NDArray[np.float64]:
    """Return the intersection over union of each of n boxes with each of m, [n, m]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(one[:, 2:] - one[:, :2], 0, None).prod(axis=1) for one in (first, second)]
    whole = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(whole, 1e-12))


def without_overlap(edges: Edges, scores: NDArray[np.float64], limit: float) -> NDArray[np.intp]:
    """Return the places of the boxes that are kept, best first (non-maximum suppression).

    Args:
        edges: float64 [n, 4].
        scores: float64 [n].
        limit: Intersection over union with a better box above which a box is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    overlaps = shared_area(edges[order], edges[order]) > limit
    kept = np.ones(len(order), dtype=np.bool_)
    for place in range(len(order)):
        if kept[place]:
            kept[place + 1 :] &= ~overlaps[place, place + 1 :]
    return order[kept]


def fused(
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
        overlap = shared_area(edges[[place]], means)[0] if len(means) else np.zeros(0)
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
