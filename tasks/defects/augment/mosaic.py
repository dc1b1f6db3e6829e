"""Mosaic: windows of four images in one (YOLOv4, Bochkovskiy et al. 2020), masks and boxes too.

Defects are seen at other sizes, on other places and beside other surfaces, and a step of training
sees four images' worth of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from tasks.defects.augment.boxes import cut, touches
from tasks.defects.samples import Box, Label, Mask, Pixels, Sample, SampleError, rgb
from tasks.defects.textures.layers import between

TILES = 4
_MIDDLE = (0.3, 0.7)
"""Where the tiles may meet, as shares of height and width."""
_COVERED = 0.3
"""Share of a pixel that must be defective for it to count, so that thin defects survive zoom."""


class Mosaic(NamedTuple):
    """A mosaic.

    Attributes:
        sample: Of the wanted size. ``ng`` where a tile shows a defect, ``ok`` where all tiles are
            known to show none. The mask is None where a defect is shown that has none; ``kind`` is
            that of the shown defects where they are of one. Its part is none of the four, so split
            by parts before.
        dropped: Boxes of which too little was left (`boxes.cut`); what is left stays in the image.
    """

    sample: Sample
    dropped: int


class _Tile(NamedTuple):
    pixels: Pixels
    mask: Mask | None
    boxes: tuple[Box, ...]
    dropped: int
    label: Label | None


def mosaic(
    samples: Sequence[Sample],
    size: tuple[int, int],
    rng: Generator,
    zoom: tuple[float, float] = (0.5, 1.0),
) -> Mosaic:
    """Join random windows of four images.

    Args:
        samples: Four; a defective one needs a mask or boxes, else nobody knows what a window shows.
        size: Height and width of the mosaic, each at least 16 pixels.
        rng: Source of all that is random: where the tiles meet, zoom and windows.
        zoom: Range of the zoom; an image too small for its tile is zoomed until it fills it.

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
    tiles = []
    for number, sample in enumerate(samples):
        rows = (0, row) if number < 2 else (row, height)
        columns = (0, column) if number % 2 == 0 else (column, width)
        tile = _tile(sample, rows, columns, zoom, rng)
        where = np.s_[slice(*rows), slice(*columns)]
        pixels[where] = rgb(tile.pixels) if colour else tile.pixels
        if tile.mask is None:
            mask = None
        elif mask is not None:
            mask[where] = tile.mask
        tiles.append(tile)
    labels = {tile.label for tile in tiles}
    label: Label | None = "ng" if "ng" in labels else None if None in labels else "ok"
    shown = zip(samples, tiles, strict=True)
    kinds = {sample.kind for sample, tile in shown if tile.label == "ng"}
    whole = Sample(
        name="+".join(sample.name for sample in samples),
        pixels=pixels,
        label=label,
        kind=kinds.pop() if len(kinds) == 1 else "",
        mask=mask,
        boxes=tuple(box for tile in tiles for box in tile.boxes),
    )
    return Mosaic(whole, sum(tile.dropped for tile in tiles))


def _tile(
    sample: Sample,
    rows: tuple[int, int],
    columns: tuple[int, int],
    zoom: tuple[float, float],
    rng: Generator,
) -> _Tile:
    """Return a random window of a sample, brought to the size of its place in the mosaic."""
    from PIL import Image

    tall, wide = rows[1] - rows[0], columns[1] - columns[0]
    height, width = sample.pixels.shape[:2]
    factor = max(between(rng, *zoom), tall / height, wide / width)
    high, broad = min(tall / factor, height), min(wide / factor, width)
    top, left = rng.uniform(0, height - high), rng.uniform(0, width - broad)
    window = (left, top, left + broad, top + high)

    def brought(values: Pixels, how: Image.Resampling) -> Pixels:
        picture = Image.fromarray(np.ascontiguousarray(values))
        return np.asarray(picture.resize((wide, tall), how, box=window))

    pixels = brought(sample.pixels, Image.Resampling.BILINEAR)
    mask = None
    if sample.mask is not None:
        covered = brought(sample.mask.astype(np.uint8) * 255, Image.Resampling.BOX)
        mask = covered >= _COVERED * 255
    elif sample.label == "ok" or not (
        sample.label is None or any(touches(box, *window) for box in sample.boxes)
    ):
        mask = np.zeros((tall, wide), dtype=np.bool_)
    frame = (columns[0], rows[0], columns[1], rows[1])
    moved = [
        replace(
            box,
            left=(box.left - left) * wide / broad + columns[0],
            top=(box.top - top) * tall / high + rows[0],
            right=(box.right - left) * wide / broad + columns[0],
            bottom=(box.bottom - top) * tall / high + rows[0],
        )
        for box in sample.boxes
        if touches(box, *window)
    ]
    kept = tuple(one for box in moved if (one := cut(box, *frame)) is not None)
    label = sample.label
    if label == "ng" and not moved and mask is not None and not mask.any():
        label = "ok"
    return _Tile(pixels, mask, kept, len(moved) - len(kept), label)
