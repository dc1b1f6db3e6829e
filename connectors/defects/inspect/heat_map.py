"""Heat maps as PNG files: the image in gray, red where it looks defective."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from tasks.defects.judgement import Heat
from tasks.defects.samples import Pixels

MAX_SIDE = 512
"""Pixels of the longer side; heat maps are smooth, and kept for every doubtful image."""


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
    warm = np.clip(np.nan_to_num(np.asarray(heat, np.float32)), 0, 1)
    small = Image.fromarray(np.round(warm * 255).astype(np.uint8))
    alpha = np.asarray(small.resize(size, Image.Resampling.BILINEAR), np.float32) / 255
    mixed = np.stack([gray + alpha * (255 - gray), gray * (1 - alpha), gray * (1 - alpha)], axis=2)
    held = io.BytesIO()
    Image.fromarray(_bytes(mixed)).save(held, "PNG")
    return held.getvalue()


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
