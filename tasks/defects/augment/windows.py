"""A random window of an image at another size, with what it shows of mask and boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from tasks.defects.augment.boxes import Augmented, cut, label_left, touches
from tasks.defects.samples import Mask, Pixels, Sample
from tasks.defects.textures.layers import between

_COVERED = 0.3
"""Share of a pixel that must be defective for it to count, so that thin defects survive zoom."""


def window(
    sample: Sample,
    size: tuple[int, int],
    rng: Generator,
    zoom: tuple[float, float] = (0.5, 1.0),
    *,
    around: bool = False,
) -> Augmented:
    """Return a random window.

    Args:
        sample: Any.
        size: Height and width of what is returned.
        rng: Source of zoom and place.
        zoom: Range of the zoom, evenly in its logarithm; an image that is too small for the window
            is zoomed until it fills it.
        around: Whether the window must show a random pixel of the mask, where there is one.

    Returns:
        The window; ``ok`` where mask or boxes tell that it shows no defect.
    """
    from PIL import Image

    height, width = sample.pixels.shape[:2]
    tall, wide = size
    factor = max(between(rng, *zoom), tall / height, wide / width)
    high, broad = min(tall / factor, height), min(wide / factor, width)
    top, left = rng.uniform(0, height - high), rng.uniform(0, width - broad)
    if around and sample.mask is not None and sample.mask.any():
        rows, columns = np.nonzero(sample.mask)
        place = int(rng.integers(len(rows)))
        top = float(np.clip(rows[place] + 0.5 - rng.uniform(0, high), 0, height - high))
        left = float(np.clip(columns[place] + 0.5 - rng.uniform(0, broad), 0, width - broad))
    place_of = (left, top, left + broad, top + high)

    def brought(values: Pixels, how: Image.Resampling) -> Pixels:
        picture = Image.fromarray(np.ascontiguousarray(values))
        return np.asarray(picture.resize((wide, tall), how, box=place_of))

    mask: Mask | None = None
    if sample.mask is not None:
        levels = sample.mask.astype(np.uint8) * np.uint8(255)
        mask = brought(levels, Image.Resampling.BOX) >= _COVERED * 255
    moved = [
        replace(
            box,
            left=(box.left - left) * wide / broad,
            top=(box.top - top) * tall / high,
            right=(box.right - left) * wide / broad,
            bottom=(box.bottom - top) * tall / high,
        )
        for box in sample.boxes
        if touches(box, *place_of)
    ]
    kept = tuple(one for box in moved if (one := cut(box, 0, 0, wide, tall)) is not None)
    label = label_left(sample.label, mask, len(moved))
    if sample.boxes and mask is None and not moved:
        label = "ok" if label == "ng" else label
    found = replace(
        sample,
        pixels=brought(sample.pixels, Image.Resampling.BILINEAR),
        mask=mask,
        boxes=kept,
        label=label,
        kind="" if label == "ok" else sample.kind,
    )
    return Augmented(found, len(moved) - len(kept))
