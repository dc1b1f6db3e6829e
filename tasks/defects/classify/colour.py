"""What colour adds to gray levels: two opponent channels. All zero for a gray image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Pixels

PERCENTILES = (1, 10, 50, 90, 99)


def colour(pixels: Pixels) -> NDArray[np.float32]:
    """Return mean, spread and percentiles of red - green and yellow - blue, float32 [14]."""
    if pixels.ndim == 2:
        return np.zeros(2 * (2 + len(PERCENTILES)), np.float32)
    red, green, blue = np.moveaxis(pixels.astype(np.float32), 2, 0)
    row: list[float] = []
    for opponent in (red - green, (red + green) / 2 - blue):
        row += [opponent.mean(), opponent.std(), *np.percentile(opponent, PERCENTILES)]
    return np.array(row, np.float32)
