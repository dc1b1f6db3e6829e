"""A classifier that is fitted in milliseconds, to rank images by what is not known of them yet.

Principal components of all images, labelled or not, then linear discriminant analysis with one
covariance for all classes, shrunk towards the identity (Ledoit and Wolf, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
COMPONENTS = 60


@dataclass(frozen=True, slots=True)
class Components:
    """The principal components of a set of images.

    Attributes:
        mean: float64 [f].
        axes: float64 [f, d], scaled so that what they were made of has spread 1 over all values.
    """

    mean: Floats
    axes: Floats

    @classmethod
    def of(cls, features: NDArray[np.generic], components: int = COMPONENTS) -> Components:
        """Return at most so many components of [n, f] features."""
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"features are {values.shape}; give finite numbers [images, features]")
        mean = values.mean(0)
        _, size, axes = np.linalg.svd(values - mean, full_matrices=False)
        axes = axes[: min(components, len(size))].T
        spread = np.std((values - mean) @ axes)
        return cls(mean, axes / max(spread, 1e-12))

    def of_images(self, features: NDArray[np.generic]) -> Floats:
        """Return [n, d] of features [n, f]."""
        return np.asarray((np.asarray(features, np.float64) - self.mean) @ self.axes)


@dataclass(frozen=True, slots=True)
class Guess:
    """Linear discriminant functions of the classes that have labels.

    Attributes:
        classes: int64 [c], in order.
        weights: float64 [d, c].
        offsets: float64 [c].
    """

    classes: Ints
    weights: Floats
    offsets: Floats

    @classmethod
    def of(cls, features: Floats, classes: Ints) -> Guess:
        """Fit to labelled images; all classes count alike, however many labels they have.

        Args:
            features: float64 [n, d].
            classes: int64 [n], at least 0.

        Raises:
            ValueError: When there is no label, or not one for each image.
        """
        if len(features) == 0 or len(features) != len(classes):
            raise ValueError(f"{len(features)} images have {len(classes)} labels; give one each")
        from sklearn.covariance import ledoit_wolf

        known, place = np.unique(classes, return_inverse=True)
        means = np.stack([features[place == one].mean(0) for one in range(len(known))])
        spread = np.eye(features.shape[1])
        freedom = len(features) - len(known)
        if freedom > 0:
            within = features - means[place]
            spread = ledoit_wolf(within, assume_centered=True)[0] * len(features) / freedom
            spread += 1e-9 * max(np.trace(spread), 1.0) * np.eye(len(spread))
        weights = np.linalg.solve(spread, means.T)
        return cls(np.asarray(known, np.int64), weights, -0.5 * (means * weights.T).sum(1))

    def probabilities(self, features: Floats, classes: int) -> Floats:
        """Return [n, classes]; a class without labels has 0."""
        scores = features @ self.weights + self.offsets
        scores = np.exp(scores - scores.max(1, keepdims=True))
        found = np.zeros((len(features), classes))
        found[:, self.classes] = scores / scores.sum(1, keepdims=True)
        return found
