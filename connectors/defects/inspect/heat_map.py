"""Heat maps as PNG files: the image in gray, red where it looks defective."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from tasks.defects.judgement import Heat
from tasks.defects.samples import Pixels

MAX_SIDE = 512
"""Pixels of the longer side; heat maps are smooth, and kept for every doubtful image."""

AT_ONCE = 256
"""Rows of a heat map that are worked on together."""


def heat_png(heat: Heat, pixels: Pixels) -> bytes:
    """Return a PNG of at most `MAX_SIDE` pixels a side.

    Args:
        heat: float [h, w] in [0, 1]; values outside are clipped, no numbers count as 0.
        pixels: uint8 [h, w] or [h, w, 3] of the same image, of any size.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    shrink = min(1.0, MAX_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    gray = np.asarray(
        Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX), np.float32
    )
    small = Image.fromarray(_warmth(heat)).resize(size, Image.Resampling.BILINEAR)
    alpha = np.asarray(small, np.float32) / 255
    mixed = np.stack([gray + alpha * (255 - gray), gray * (1 - alpha), gray * (1 - alpha)], axis=2)
    held = io.BytesIO()
    Image.fromarray(_bytes(mixed)).save(held, "PNG")
    return held.getvalue()


def _warmth(heat: Heat) -> NDArray[np.uint8]:
    """Return 0 to 255, a few rows at a time: of a large image, copies as floats fill an edge."""
    found = np.empty(heat.shape, np.uint8)
    for top in range(0, len(heat), AT_ONCE):
        part = np.nan_to_num(np.asarray(heat[top : top + AT_ONCE], np.float32))
        found[top : top + AT_ONCE] = np.round(np.clip(part, 0, 1) * 255)
    return found


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
