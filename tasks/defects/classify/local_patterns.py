"""Completed local binary patterns: signs and sizes of the differences to eight neighbours.

Guo, Zhang and Zhang, A completed modeling of local binary pattern operator for texture
classification (IEEE Transactions on Image Processing 19, 2010). The joint histogram of rotation
invariant uniform codes of signs and of sizes, apart for pixels above and below the mean; at several
radii, each on an image smoothed for it (Mäenpää and Pietikäinen 2003).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled
from tasks.defects.classify.prepare import Gray

Floats = NDArray[np.float32]
RINGS = (
    (1.0, 0.0), (2.0, 0.7), (3.0, 1.0), (5.0, 1.7), (8.0, 2.7),
    (1.0, 0.5), (1.0, 1.0), (1.0, 2.0), (1.0, 4.0),
)  # fmt: skip
"""Radius of the neighbours and width of the smoothing before, in pixels. The second row takes
close neighbours of smoother and smoother images."""
NEIGHBOURS, CODES = 8, 10
LEVEL = 0.01
"""Differences in gray levels that count as none: rounding must not decide in flat regions."""


def local_patterns(gray: Gray, rings: tuple[tuple[float, float], ...] = RINGS) -> Floats:
    """Return roots of the shares of each joint code, float32 [len(rings) * 200].

    Args:
        gray: float32 [h, w], at least 24 a side.
        rings: Radius and smoothing of each.
    """
    from scipy.ndimage import gaussian_filter

    made = []
    for radius, smoothing in rings:
        image = gaussian_filter(gray, smoothing) if smoothing else gray
        margin = math.ceil(radius) + 1
        inner = image[margin:-margin, margin:-margin]
        counts = _counts(_differences(image, *_ring(radius), margin), inner >= image.mean(), _CLASS)
        made.append(np.sqrt(counts.ravel() / inner.size))
    return np.asarray(np.concatenate(made), np.float32)


def _ring(radius: float) -> tuple[NDArray[np.int64], Floats]:
    """Return for each neighbour the corner [8, 2] left above it and the bilinear weights [8, 4]."""
    angle = 2 * np.pi * np.arange(NEIGHBOURS) / NEIGHBOURS
    place = np.round(np.stack([-radius * np.sin(angle), radius * np.cos(angle)], axis=1), 6)
    corner = np.floor(place)
    y, x = (place - corner).T
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)
    return corner.astype(np.int64), weights.astype(np.float32)


def _classes() -> NDArray[np.int64]:
    """Return the class of each code of eight bits: how many are set, 9 for non-uniform ones."""
    bits = (np.arange(256)[:, None] >> np.arange(NEIGHBOURS)) & 1
    turns = (bits != np.roll(bits, 1, axis=1)).sum(1)
    return np.where(turns <= 2, bits.sum(1), CODES - 1)


_CLASS = _classes()


@compiled
def _differences(image: Gray, corners: NDArray[np.int64], weights: Floats, margin: int) -> Floats:
    """Return each neighbour less the pixel, float32 [8, h - 2 * margin, w - 2 * margin]."""
    height, width = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    out = np.empty((len(corners), height, width), np.float32)
    for k in range(len(corners)):
        for i in range(height):
            y = i + margin + corners[k, 0]
            for j in range(width):
                x = j + margin + corners[k, 1]
                upper = weights[k, 0] * image[y, x] + weights[k, 1] * image[y, x + 1]
                lower = weights[k, 2] * image[y + 1, x] + weights[k, 3] * image[y + 1, x + 1]
                out[k, i, j] = upper + lower - image[i + margin, j + margin]
    return out


@compiled
def _counts(
    differences: Floats, bright: NDArray[np.bool_], classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Count pixels by class of signs, class of sizes (against their mean), and brightness."""
    usual = np.abs(differences).mean()
    counts = np.zeros((10, 10, 2))
    for i in range(bright.shape[0]):
        for j in range(bright.shape[1]):
            signs = sizes = 0
            for k in range(len(differences)):
                value = differences[k, i, j]
                if value >= -LEVEL:
                    signs |= 1 << k
                if abs(value) >= usual:
                    sizes |= 1 << k
            counts[classes[signs], classes[sizes], int(bright[i, j])] += 1
    return counts
