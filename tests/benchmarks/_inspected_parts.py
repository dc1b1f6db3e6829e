"""Inspected parts as a table: made-up surfaces, some damaged, and readable measures of each.

The measures are those an inspector can check with a ruler and a grey card: of the brightness, and
of the spot that differs most from the surface around it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.defects.textures.defects import DEFECTS, add_defect
from tasks.defects.textures.surface import draw_surface, to_pixels, varied

SIDE = 48
"""Pixels."""

STRENGTH = 2.0, 8.0
"""Contrast of a defect, in spreads of the surface."""

SPOTS = 3.0
"""Spreads from the surface around from which a pixel belongs to a spot."""

NAMES = (
    *("mean", "spread", "darkest", "brightest", "roughness"),
    *("spot_pixels", "spot_length", "spot_width", "spot_contrast", "spot_darker", "spots"),
    *("spots_pixels", "edge_distance"),
)


class Parts(NamedTuple):
    """Parts of one line.

    Attributes:
        rows: float32 [n, 13], columns `NAMES`.
        damaged: bool [n].
    """

    rows: NDArray[np.float32]
    damaged: NDArray[np.bool_]


def inspected(count: int, seed: int, share: float = 0.15) -> Parts:
    """Return parts of a line of brushed metal, a share of them damaged by any kind of defect."""
    rng = np.random.default_rng(seed)
    surface = draw_surface("metal", rng)
    rows, damaged = [], rng.random(count) < share
    for bad in damaged:
        pixels = to_pixels(varied(surface, rng, 0.1).render((SIDE, SIDE), rng))
        if bad:
            pixels, _ = add_defect(pixels, str(rng.choice(DEFECTS)), rng, STRENGTH)
        rows.append(measures(pixels))
    return Parts(np.array(rows, dtype=np.float32), damaged)


def measures(pixels: NDArray[np.uint8]) -> list[float]:
    """Return the measures of one image uint8 [h, w] in the order of `NAMES`; grey levels, pixels.

    Without a spot its measures are 0.
    """
    from scipy import ndimage

    field = pixels.astype(np.float64)
    smooth = ndimage.gaussian_filter(field, 1.0)
    apart = smooth - ndimage.gaussian_filter(field, 10.0, truncate=2.0)
    spread = 1.4826 * float(np.median(np.abs(apart - np.median(apart)))) + 0.5
    # Around a dark spot the surface stands above its blurred mean: that rim is no part of it.
    dark, dark_spots = ndimage.label(apart < -SPOTS * spread)
    bright, bright_spots = ndimage.label(apart > SPOTS * spread)
    labels, spots = np.where(bright > 0, bright + dark_spots, dark), dark_spots + bright_spots
    rough = float(np.abs(np.diff(field, axis=1)).mean())
    plain = [field.mean(), field.std(), smooth.min(), smooth.max(), rough]
    if not spots:
        return [*plain, *[0.0] * (len(NAMES) - len(plain))]
    sizes = np.bincount(labels.ravel())[1:]
    strongest = labels == labels[np.unravel_index(np.abs(apart).argmax(), labels.shape)]
    y, x = np.nonzero(strongest)
    axes = np.linalg.eigvalsh(np.cov(np.stack([y, x]), bias=True)) if len(y) > 1 else np.zeros(2)
    width, length = 4 * np.sqrt(np.maximum(axes, 0)) + 1
    contrast = float(np.abs(apart[strongest]).mean() / spread)
    darker = float((apart[strongest] < 0).mean())
    edge = min(y.min(), x.min(), SIDE - 1 - y.max(), SIDE - 1 - x.max())
    spot = [len(y), length, width, contrast, darker, spots, int(sizes.sum()), edge]
    return [*plain, *map(float, spot)]
