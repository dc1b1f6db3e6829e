"""How bright an image is: three percentiles of its levels."""

from __future__ import annotations

import numpy as np

from tasks.cleaning.images.features import gray_of
from tasks.defects.samples import Pixels

PERCENTILES = (5, 50, 95)


def brightness(pixels: Pixels) -> dict[str, float]:
    """Return percentiles of brightness, 0 to 255, by name.

    Levels are taken as if spread evenly over their width, so that small changes show.
    """
    from PIL import Image

    # Not numpy's: that would hold eight bytes a pixel.
    counts = np.array(Image.fromarray(gray_of(pixels)).histogram())
    rising = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    ends = np.arange(257.0) - 0.5
    levels = np.interp([q / 100 for q in PERCENTILES], rising, ends)
    return {
        f"brightness_p{q:02d}": float(level) for q, level in zip(PERCENTILES, levels, strict=True)
    }
