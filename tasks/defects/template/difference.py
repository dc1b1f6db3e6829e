"""Compares an image that lies on the golden sample with it: light evened, edges tolerated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.defects.template.align import Field, wide_mean

Planes = NDArray[np.float32]
"""float32 [h, w, c]."""
_NEVER_ZERO = 1e-4
_ROUNDS = 2
_TOGETHER = 1.5
"""Spread of a neighbourhood in pixels."""


def relit(golden: Field, image: Field, wide: float) -> Field:
    """Return the golden sample under the image's light.

    Gain and offset are fitted in windows, as a guided filter does (He et al., PAMI 35, 2013), and
    are those of the whole image where there is no contrast; pixels that differ count little.

    Args:
        golden: float32 [h, w].
        image: float32 [h, w], NaN where it ends.
        wide: Spread of the windows in pixels.
    """
    known = np.isfinite(image)
    own = np.where(known, image, 0)
    weight = known.astype(np.float32)
    made = golden
    for place in range(_ROUNDS + 1):
        gain, offset = _global(golden, own, weight)
        even = own - gain * golden - offset
        values = (golden, even, golden * golden, golden * even)
        total = wide_mean(weight, wide) + _NEVER_ZERO
        middle, rest, square, product = (wide_mean(weight * v, wide) / total for v in values)
        around = np.average((golden - golden.mean()) ** 2)
        power = square - middle * middle
        slope = (product - middle * rest) / (power + 0.1 * around + 1e-8)
        made = (gain + slope) * golden + offset + rest - slope * middle
        if place < _ROUNDS:
            apart = np.abs(own - made)
            scale = 2.5 * float(np.median(apart[known])) + 1e-3
            weight = (known / (1 + (apart / scale) ** 2)).astype(np.float32)
    return np.asarray(made, np.float32)


def beyond(image: Field, golden: Field, edge: int) -> Field:
    """Return how much each small neighbourhood differs at the shift that suits it best.

    All of a neighbourhood moves together, so that an edge that is a little off its place is
    nothing, but a thin line that lacks still lacks.

    Args:
        image: float32 [h, w]; NaN, where it ends, stays NaN.
        golden: float32 [h, w].
        edge: Largest shift in pixels, along both axes.

    Returns:
        Mean size of the difference around each pixel; below 0 where the image is mostly darker.
    """
    known = np.isfinite(image)
    own = np.where(known, image, golden)
    padded = np.pad(golden, edge, "edge")
    height, width = golden.shape
    least = np.full(golden.shape, np.inf, np.float32)
    sign = np.zeros_like(least)
    for down in range(2 * edge + 1):
        for right in range(2 * edge + 1):
            apart = own - padded[down : down + height, right : right + width]
            size = ndimage.gaussian_filter(np.abs(apart), _TOGETHER)
            better = size < least
            least = np.where(better, size, least)
            sign = np.where(better, ndimage.gaussian_filter(apart, _TOGETHER), sign)
    return np.asarray(np.where(known, np.copysign(least, sign), np.nan), np.float32)


def ink_of(golden: Field) -> tuple[NDArray[np.bool_], float]:
    """Return where there is print, and whether it is brighter (1) or darker (-1) than the ground.

    Print is the rarer of the two classes of brightness that differ most (Otsu 1979).
    """
    levels, edges = np.histogram(golden, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(levels)
    above = below[-1] - below
    sums = np.cumsum(levels * middles)
    low = sums / np.maximum(below, 1)
    high = (sums[-1] - sums) / np.maximum(above, 1)
    limit = middles[int((below * above * (high - low) ** 2).argmax())]
    bright = golden > limit
    rarer = bright.mean() <= 0.5
    return (bright, 1.0) if rarer else (~bright, -1.0)


def _global(golden: Field, own: Field, weight: Field) -> tuple[float, float]:
    total = float(weight.sum()) + _NEVER_ZERO
    a, b = float((weight * golden).sum()) / total, float((weight * own).sum()) / total
    power = float((weight * (golden - a) ** 2).sum()) / total
    both = float((weight * (golden - a) * (own - b)).sum()) / total
    gain = both / (power + 1e-8)
    return gain, b - gain * a
