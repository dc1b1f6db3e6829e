"""Numbers of an image's texture at a glance, for ranking before any detector is trained.

Local binary patterns (Ojala, Pietikäinen and Mäenpää, 2002) in all their 256 forms at four scales;
at each the centre is the mean over a square as wide as its neighbours are far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RADII = (1, 2, 4, 8)
MOST_SIDE = 512
"""Longer images are brought to about this side by means over squares."""
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
LENGTH = 256 * len(RADII)


def texture(gray: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return square roots of the shares of each pattern: float32 [1024], of length 2.

    Args:
        gray: [h, w] of any depth; a scale that the image is too small for gives zeros.

    Raises:
        ValueError: When it has another number of axes.
    """
    if gray.ndim != 2:
        raise ValueError(f"the image is {gray.shape}; give gray [h, w]")
    values = _smaller(np.asarray(gray, np.float64))
    found = np.zeros((len(RADII), 256), np.float32)
    for place, radius in enumerate(RADII):
        if min(values.shape) > 2 * radius:
            found[place] = np.sqrt(_patterns(values, radius))
    return found.ravel()


def _smaller(values: Floats) -> Floats:
    by = -(-max(values.shape) // MOST_SIDE)
    by = min(by, *values.shape)
    if by == 1:
        return values
    height, width = (side // by for side in values.shape)
    cut = values[: height * by, : width * by]
    return np.asarray(cut.reshape(height, by, width, by).mean((1, 3)))


def _patterns(values: Floats, radius: int) -> Floats:
    smooth = _box_means(values, radius) if radius > 1 else values
    height, width = smooth.shape
    middle = smooth[radius:-radius, radius:-radius]
    code = np.zeros(middle.shape, np.uint8)
    for bit, (down, right) in enumerate(NEIGHBOURS):
        top, left = radius * (1 + down), radius * (1 + right)
        other = smooth[top : top + height - 2 * radius, left : left + width - 2 * radius]
        code |= (other >= middle).astype(np.uint8) << np.uint8(bit)
    return np.bincount(code.ravel(), minlength=256) / code.size


def _box_means(values: Floats, side: int) -> Floats:
    before, after = side // 2, side - side // 2 - 1
    padded = np.pad(values, ((before + 1, after), (before + 1, after)), mode="edge")
    padded[0] = padded[:, 0] = 0.0
    sums = padded.cumsum(0).cumsum(1)
    box = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(box / side**2)
