"""Pixels as shares of full brightness, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Pixels

Surface = NDArray[np.float32]
"""float32 [h, w, channels] in [0, 1]."""


def surface_of(pixels: Pixels) -> Surface:
    """Return pixels as a surface; gray ones have one channel."""
    whole = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.asarray(whole.astype(np.float32) / np.float32(255), dtype=np.float32)


def pixels_of(surface: Surface) -> Pixels:
    """Return a surface as pixels, uint8 [h, w] or [h, w, 3]."""
    found: Pixels = np.rint(surface * np.float32(255)).astype(np.uint8)
    return found[..., 0] if found.shape[2] == 1 else found
