"""From pairs to entities: connected components, average linkage inside them, one-to-one links."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Array = NDArray[np.float64]


def components(n: int, left: Rows, right: Rows) -> Rows:
    """Return for every row the first row that pairs connect it to: int64 [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    return first_rows(connected_components(edges, directed=False)[1])


def first_rows(labels: NDArray[np.int32] | Rows) -> Rows:
    """Return for every row the first row with its label: int64 [rows]."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def average_linkage(
    n: int,
    left: Rows,
    right: Rows,
    odds: Array,
    score: Callable[[Rows, Rows], Array],
    *,
    threshold: float,
    clip: float,
    max_size: int,
) -> Rows:
    """Merge rows while the mean log-odds between two clusters lie above a threshold.

    One wrong pair joins two components for good; here it is outvoted by the pairs around it, also
    by those that no blocking rule named. Components larger than ``max_size`` rows are first
    parted at rising thresholds.

    Args:
        n: Rows of the table.
        left: int64 [pairs]
        right: int64 [pairs]
        odds: float64 [pairs] log-odds of these pairs.
        score: Log-odds of any pairs.
        threshold: Lowest mean log-odds of a merge.
        clip: Log-odds beyond this count as this: no pair decides alone.
        max_size: Largest component that all pairs of are looked at.

    Returns:
        int64 [n] first row of the cluster of each row.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    label = _parted(n, left, right, odds, threshold, max_size)
    order = np.argsort(label, kind="stable")
    sizes = np.unique(label[order], return_index=True)[1]
    groups = [g for g in np.split(order, sizes[1:]) if len(g) > 1]
    inner = [np.triu_indices(len(g), 1) for g in groups]
    if not groups:
        return label
    a = np.concatenate([g[i] for g, (i, _) in zip(groups, inner, strict=True)])
    b = np.concatenate([g[j] for g, (_, j) in zip(groups, inner, strict=True)])
    distance = clip - np.clip(score(a, b), -clip, clip)
    starts = np.cumsum([0, *(len(i) for i, _ in inner)])
    for number, group in enumerate(groups):
        apart = distance[starts[number] : starts[number + 1]]
        tree = linkage(apart, "average")
        found = fcluster(tree, clip - threshold, "distance")
        label[group] = group[first_rows(found)]
    return label


def _parted(n: int, left: Rows, right: Rows, odds: Array, threshold: float, max_size: int) -> Rows:
    chosen = odds >= threshold
    left, right, odds = left[chosen], right[chosen], odds[chosen]
    label = components(n, left, right)
    while len(left):
        large = np.bincount(label, minlength=n)[label[left]] > max_size
        if not large.any():
            break
        # The weakest tenth of the pairs of large components goes, until they fall apart; pairs of
        # equal odds stay or go together.
        cut = np.quantile(odds[large], 0.1, method="lower")
        weakest = large & (odds < cut)
        if not weakest.any():
            weakest = large & (odds <= cut)
        left, right, odds = left[~weakest], right[~weakest], odds[~weakest]
        label = components(n, left, right)
    return label


def one_to_one(left: Rows, right: Rows, odds: Array) -> NDArray[np.bool_]:
    """Choose pairs so that no row is in two, the surest first: bool [pairs]."""
    chosen = np.zeros(len(odds), bool)
    seen_left: set[int] = set()
    seen_right: set[int] = set()
    for i in np.argsort(-odds, kind="stable").tolist():
        a, b = int(left[i]), int(right[i])
        if a not in seen_left and b not in seen_right:
            chosen[i] = True
            seen_left.add(a)
            seen_right.add(b)
    return chosen
