"""Gray levels, and how they are spread once larger and larger things are taken away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.prepare import Gray

WIDTHS = (1, 2, 4, 8, 16)
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
TAILS = (1, 10, 90, 99)


def gray_levels(gray: Gray) -> NDArray[np.float32]:
    """Return moments and percentiles, float32 [48].

    Of the levels themselves: mean, log of the spread, skewness, fourth root of the kurtosis, and
    percentiles about the median in units of the spread. Of the levels less a Gaussian mean of each
    width: log of the spread, skewness, kurtosis and tails. A bright line on dark ground and a dark
    one on bright ground differ in the signs of these.
    """
    from scipy.ndimage import gaussian_filter

    spread = gray.std() + 1
    levels = np.percentile(gray, PERCENTILES)
    row = [gray.mean(), np.log(spread), *_shape((gray - gray.mean()) / spread)]
    row += [*((levels - levels[len(levels) // 2]) / spread)]
    for width in WIDTHS:
        detail = gray - gaussian_filter(gray, width)
        size = detail.std() + 0.5
        row += [np.log(size), *_shape(detail / size), *np.percentile(detail / size, TAILS)]
    return np.array(row, np.float32)


def _shape(values: Gray) -> tuple[float, float]:
    square = values * values
    return float((square * values).mean()), float((square * square).mean() ** 0.25)
