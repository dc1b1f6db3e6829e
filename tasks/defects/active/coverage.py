"""Images that stand for others: typical ones of clusters without labels, a batch spread out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CLUSTERS = 60
MOST_CLUSTERED = 5_000
"""Centres are learnt from so many images at most, a fixed draw of them."""
NEIGHBOURS = 20
MOST_NEAR = 2_000
SEED = 0


def typical(features: Floats, labelled: Ints, free: NDArray[np.bool_], number: int) -> Ints:
    """Return typical images of clusters with few labels, those of large clusters first.

    There are as many clusters as labels afterwards, at most ``MOST_CLUSTERS``. Typical is what lies
    near its 20 nearest neighbours within the cluster (TypiClust).

    Args:
        features: float64 [n, d].
        labelled: Places of the images that have labels.
        free: bool [n], images that may be returned.
        number: How many.

    Returns:
        int64 [number], fewer where fewer are free.
    """
    number = min(number, int(free.sum()))
    if number < 1:
        return np.zeros(0, np.int64)
    cluster = _clusters(features, min(len(labelled) + number, MOST_CLUSTERS))
    size = np.bincount(cluster)
    taken = np.bincount(cluster[labelled], minlength=len(size))
    open_ = np.bincount(cluster[free], minlength=len(size))
    waiting: dict[int, list[int]] = {}
    found: list[int] = []
    for _ in range(number):
        some = np.flatnonzero(open_ > 0)
        one = int(some[np.lexsort((-size[some], taken[some]))[0]])
        if one not in waiting:
            waiting[one] = _by_typicality(features, np.flatnonzero(cluster == one), free)
        found.append(waiting[one].pop(0))
        taken[one] += 1
        open_[one] -= 1
    return np.array(found, np.int64)


def spread_out(features: Floats, weight: Floats, number: int) -> Ints:
    """Return places of images that lie apart: the one nearest to each of so many weighted centres.

    Args:
        features: float64 [n, d].
        weight: float64 [n], not negative: how much each image draws a centre.
        number: How many, at most n; of images that all lie on fewer points the first.
    """
    if number >= len(np.unique(features, axis=0)):
        return np.arange(min(number, len(features)))
    from sklearn.cluster import KMeans

    weight = np.maximum(weight, 1e-9 * max(float(weight.max()), 1e-9))
    made = KMeans(number, n_init=1, random_state=SEED).fit(features, sample_weight=weight)
    far = np.square(features - made.cluster_centers_[made.labels_]).sum(1)
    order = np.lexsort((far, made.labels_))
    return np.asarray(order[np.unique(made.labels_[order], return_index=True)[1]], np.int64)


def _clusters(features: Floats, number: int) -> Ints:
    """Return the cluster of each image: int64 [n]."""
    from sklearn.cluster import KMeans

    some = features
    if len(features) > MOST_CLUSTERED:
        draw = np.random.default_rng(SEED).permutation(len(features))[:MOST_CLUSTERED]
        some = features[draw]
    # Equal images would make empty clusters, which are a warning.
    number = min(number, len(np.unique(some, axis=0)))
    made = KMeans(number, n_init=1, random_state=SEED).fit(some)
    return np.asarray(made.predict(features), np.int64)


def _by_typicality(features: Floats, members: Ints, free: NDArray[np.bool_]) -> list[int]:
    """Return the free members of a cluster, the most typical first."""
    from scipy.spatial.distance import cdist

    near = members
    if len(members) > MOST_NEAR:
        near = np.random.default_rng(SEED).permutation(members)[:MOST_NEAR]
    open_ = members[free[members]]
    far = np.partition(cdist(features[open_], features[near]), min(NEIGHBOURS, len(near) - 1))
    mean = far[:, : NEIGHBOURS + 1].mean(1)
    return [int(place) for place in open_[np.argsort(mean, kind="stable")]]
