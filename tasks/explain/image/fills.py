"""What stands where a segment is absent: an image without the detail that is explained."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fill = Literal["blur", "mean"]
Image = NDArray[np.float32]
"""float32 ``[C, H, W]``."""
BLUR = 1 / 10
"""Standard deviation of the blur, as a share of the shorter side."""


def filled(image: Image, fill: Fill) -> Image:
    """Return the image that absent segments are cut out of, ``[C, H, W]``.

    ``blur`` keeps light and large shapes; ``mean`` keeps each channel's mean alone, with an edge
    around what it covers. A constant image is its own fill.
    """
    if fill == "mean":
        mean = image.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
        return np.broadcast_to(mean, image.shape).astype(np.float32)
    from scipy.ndimage import gaussian_filter

    sigma = BLUR * min(image.shape[1:])
    blurred = gaussian_filter(image.astype(np.float64), (0, sigma, sigma), mode="reflect")
    return np.asarray(blurred, dtype=np.float32)
