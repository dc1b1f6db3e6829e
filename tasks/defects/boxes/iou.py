"""Intersection over union of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.float64]
"""float64 [n, 4]: left, top, right, bottom."""


def pairwise_iou(first: Edges, second: Edges) -> NDArray[np.float64]:
    """Return the intersection over union of each of n boxes with each of m, [n, m]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(one[:, 2:] - one[:, :2], 0, None).prod(axis=1) for one in (first, second)]
    whole = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(whole, 1e-12))
