"""What colour adds to gray levels: two opponent channels. All zero for a gray image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Pixels

PERCENTILES = (1, 10, 50, 90, 99)
AT_ONCE = 1 << 20
"""Pixels that are counted together; an image may have fifty times as many."""


def colour(pixels: Pixels) -> NDArray[np.float32]:
    """Return mean, spread and percentiles of red - green and yellow - blue, float32 [14]."""
    if pixels.ndim == 2:
        return np.zeros(2 * (2 + len(PERCENTILES)), np.float32)
    red_green, yellow_blue = np.zeros(511, np.int64), np.zeros(1021, np.int64)
    rows = max(1, AT_ONCE // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        red, green, blue = np.moveaxis(pixels[top : top + rows].astype(np.int16), 2, 0)
        red_green += np.bincount((red - green + 255).ravel(), minlength=511)
        yellow_blue += np.bincount((red + green - 2 * blue + 510).ravel(), minlength=1021)
    found = _told(red_green, np.arange(-255.0, 256)) + _told(yellow_blue, np.arange(-510, 511) / 2)
    return np.array(found, np.float32)


def _told(counts: NDArray[np.int64], levels: NDArray[np.float64]) -> list[float]:
    """Return mean, spread and percentiles of levels that occur so often."""
    total = int(counts.sum())
    mean = float(counts @ levels) / total
    spread = float(np.sqrt(counts @ (levels - mean) ** 2 / total))
    places = np.array(PERCENTILES) / 100 * (total - 1)
    low = places.astype(np.int64)
    rising = np.cumsum(counts)
    below = levels[np.searchsorted(rising, low, side="right")]
    above = levels[np.searchsorted(rising, np.minimum(low + 1, total - 1), side="right")]
    return [mean, spread, *(below + (places - low) * (above - below))]
