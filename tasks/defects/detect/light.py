"""Takes exposure, vignetting and slopes of light out of an image before the net sees it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

CELL = 8
"""Pixels per cell of the map of light."""
REACH = 4
"""Cells on each side that count as surroundings, so 72 pixels in all."""
_CONTRAST, _FLOOR = 0.18, 0.01


def evenly_lit(pixels: Tensor) -> Tensor:
    """Return pixels with one mean and spread in all surroundings, in the mean over colours.

    A whole image and a piece of it look alike afterwards, though the net brings each to one mean
    and spread of its own.

    Args:
        pixels: float [n, 3, h, w] in [0, 1], sides of at least 8.

    Returns:
        float [n, 3, h, w] in [0, 1], mean about .5, spread about .18.
    """
    size = pixels.shape[-2:]
    gray = pixels.mean(dim=1, keepdim=True)
    level = _surroundings(gray, size)
    spread = (_surroundings(gray.square(), size) - level.square()).clamp_min(0).sqrt()
    return ((pixels - level) / (spread + _FLOOR) * _CONTRAST + 0.5).clamp(0, 1)


def _surroundings(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return means over some 72 pixels; small maps of cells make them cheap."""
    cells = functional.avg_pool2d(values, CELL, ceil_mode=True, count_include_pad=False)
    cells = functional.avg_pool2d(cells, 2 * REACH + 1, 1, REACH, count_include_pad=False)
    return functional.interpolate(cells, size=size, mode="bilinear", align_corners=False)
