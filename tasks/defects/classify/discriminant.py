"""Linear discriminant of few samples in many dimensions, with Ledoit and Wolf's shrinkage.

Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices (Journal of
Multivariate Analysis 88, 2004). The covariance within types is shrunk towards a multiple of the
identity; it is never formed, since n samples span n dimensions and outside of them it is a
multiple of the identity. 50 samples of 1,800 numbers take milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEW_AXES = 8
"""Axes kept where there is only one type, which nothing discriminates."""
LEAST_SHRINKAGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Discriminant:
    """Axes along which the types differ, in units of the spread within types.

    Attributes:
        centre: [d], of the labelled samples.
        scale: [d], their spread.
        axes: [d, r], r at most types - 1.
        centroids: [types, r], the types' means along the axes.
    """

    centre: Floats
    scale: Floats
    axes: Floats
    centroids: Floats

    def coordinates(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Return [n, r] of [n, d]."""
        return np.asarray(((features - self.centre) / self.scale) @ self.axes)

    def distances(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Return squared distances to the types' means, [n, types]; logits are minus their half."""
        away = self.coordinates(features)[:, None] - self.centroids[None]
        return np.asarray((away**2).sum(2))


def fit_discriminant(
    features: NDArray[np.floating[Any]], targets: NDArray[np.int64], types: int, weights: Floats
) -> Discriminant:
    """Fit the discriminant.

    Args:
        features: [n, d].
        targets: int [n] in 0 to types - 1; each type at least once.
        types: Number of types.
        weights: [n], above 0; how much each sample counts.
    """
    features = np.asarray(features, np.float64)
    weights = weights / weights.sum()
    centre = weights @ features
    scale = np.sqrt(weights @ (features - centre) ** 2)
    usual = float(np.median(scale[scale > 0])) if (scale > 0).any() else 1.0
    scale = np.sqrt(scale**2 + (0.1 * usual) ** 2)  # what hardly varies must not be blown up
    unit = (features - centre) / scale
    share = np.zeros((types, len(unit)))
    share[targets, np.arange(len(unit))] = weights
    size = share.sum(1, keepdims=True)
    means = (share / size) @ unit
    within = (unit - means[targets]) * np.sqrt(weights)[:, None]
    shrinkage, level = _ledoit_wolf(within, weights)
    if level <= 0:  # one sample per type: nothing is known of the spread within
        shrinkage, level = 1.0, max(float((unit**2).mean()), 1e-12)
    singular, right = _spectrum(within)
    free = 1 - (weights**2).sum() * types  # as n - types degrees of freedom
    values = (1 - shrinkage) * singular**2 / max(free, 1 / len(unit))
    floor = shrinkage * level
    if types == 1:
        largest = np.argsort(-singular)[:FEW_AXES]
        largest = largest[singular[largest] > 1e-12]
        axes = right[largest].T / np.sqrt(floor + values[largest])
        return Discriminant(centre, scale, axes, means @ axes)
    apart = means - means.mean(0)
    solved = apart / floor + ((apart @ right.T) * (1 / (floor + values) - 1 / floor)) @ right
    lengths, vectors = np.linalg.eigh(solved @ apart.T)
    keep = lengths > 1e-9 * max(float(lengths.max()), 1e-12)
    axes = solved.T @ (vectors[:, keep] / np.sqrt(lengths[keep]))
    return Discriminant(centre, scale, axes, means @ axes)


def _spectrum(within: Floats) -> tuple[Floats, Floats]:
    """Return singular values and right singular vectors, by whichever way is cheaper."""
    if len(within) <= within.shape[1]:
        _, singular, right = np.linalg.svd(within, full_matrices=False)
        return singular, right
    values, vectors = np.linalg.eigh(within.T @ within)
    return np.sqrt(np.maximum(values, 0)), vectors.T


def _ledoit_wolf(within: Floats, weights: Floats) -> tuple[float, float]:
    """Return the shrinkage in 0 to 1 and the mean variance that is shrunk to.

    Args:
        within: [n, d] residuals, each times the root of its weight.
        weights: [n], sum 1.
    """
    dimensions = within.shape[1]
    small = within if len(within) <= dimensions else within.T
    lengths = (within**2).sum(1)
    level = float(lengths.sum()) / dimensions
    square = float(((small @ small.T) ** 2).sum()) / dimensions
    away = square - level**2
    own = float((lengths**2).sum()) / dimensions
    noise = own - float((weights**2).sum()) * square
    if away <= 0:
        return 1.0, level
    return float(np.clip(noise / away, LEAST_SHRINKAGE, 1.0)), level
