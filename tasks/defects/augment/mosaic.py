"""Mosaic: windows of four images in one (YOLOv4, Bochkovskiy et al. 2020), masks and boxes too.

Defects are seen at other sizes, on other places and beside other surfaces, and a step of training
sees four images' worth of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from tasks.defects.augment.boxes import Augmented, shifted
from tasks.defects.augment.windows import window
from tasks.defects.samples import Box, Label, Mask, Sample, SampleError, rgb

TILES = 4
_MIDDLE = (0.3, 0.7)
"""Where the tiles may meet, as shares of height and width."""


def mosaic(
    samples: Sequence[Sample],
    size: tuple[int, int],
    rng: Generator,
    zoom: tuple[float, float] = (0.5, 1.0),
) -> Augmented:
    """Join random windows of four images.

    Args:
        samples: Four; a defective one needs a mask or boxes, else nobody knows what a window shows.
        size: Height and width of the mosaic, each at least 16 pixels.
        rng: Source of all that is random: where the tiles meet, zoom and windows.
        zoom: Range of the zoom; an image too small for its tile is zoomed until it fills it.

    Returns:
        ``ng`` where a tile shows a defect, ``ok`` where all are known to show none; ``kind`` that
        of the shown defects where they are of one; a mask where all shown defects have one.

    Raises:
        SampleError: A defective sample without mask and boxes.
        ValueError: Not four samples, a size under 16 pixels, or no range of zoom.
    """
    if len(samples) != TILES:
        raise ValueError(f"a mosaic is made of {TILES} samples, got {len(samples)}")
    height, width = size
    if min(size) < 16:
        raise ValueError(f"size is {size}; give at least 16 x 16 pixels")
    if not 0 < zoom[0] <= zoom[1]:
        raise ValueError(f"zoom is {zoom}; give two factors above 0, the lower first")
    for sample in samples:
        if sample.label == "ng" and sample.mask is None and not sample.boxes:
            raise SampleError(
                f"{sample.name} is defective, but has neither mask nor boxes, so nobody knows "
                "whether a window shows the defect; draw one, or leave it out of mosaics"
            )
    colour = any(sample.pixels.ndim == 3 for sample in samples)
    row, column = (round(side * rng.uniform(*_MIDDLE)) for side in size)
    pixels = np.empty((height, width, 3) if colour else (height, width), dtype=np.uint8)
    mask: Mask | None = np.zeros((height, width), dtype=np.bool_)
    dropped = 0
    boxes: list[Box] = []
    shown: list[Sample] = []
    for number, sample in enumerate(samples):
        rows = (0, row) if number < 2 else (row, height)
        columns = (0, column) if number % 2 == 0 else (column, width)
        tile, lost = window(sample, (rows[1] - rows[0], columns[1] - columns[0]), rng, zoom)
        where = np.s_[slice(*rows), slice(*columns)]
        pixels[where] = rgb(tile.pixels) if colour else tile.pixels
        if tile.mask is None and tile.label != "ok":
            mask = None
        elif mask is not None and tile.mask is not None:
            mask[where] = tile.mask
        boxes += [shifted(box, rows[0], columns[0]) for box in tile.boxes]
        dropped += lost
        shown.append(tile)
    labels = {tile.label for tile in shown}
    label: Label | None = "ng" if "ng" in labels else None if None in labels else "ok"
    kinds = {tile.kind for tile in shown if tile.label == "ng"}
    whole = Sample(
        name="+".join(sample.name for sample in samples),
        pixels=pixels,
        label=label,
        kind=kinds.pop() if len(kinds) == 1 else "",
        mask=mask,
        boxes=tuple(boxes),
    )
    return Augmented(whole, dropped)
