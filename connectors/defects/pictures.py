"""Judged images as pictures for people: with heat map and boxes, alone or many on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from connectors.defects.inspect.heat_map import heat_png
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Box, Pixels, Sample, rgb

if TYPE_CHECKING:
    from PIL.Image import Image

    from tasks.defects.detect.explain import DefectExplanation

SIDE = 256
"""Longest side of a picture in pixels."""
LEAST = 128
"""Shortest side of a place on a sheet, so that there is room for a name."""
COLUMNS = 3
_TEXT, _GAP = 30, 6
_PAPER, _INK, _LINE = (255, 255, 255), (22, 32, 44), (0, 214, 255)


def picture(pixels: Pixels) -> bytes:
    """Return an image as PNG, at most `SIDE` pixels a side."""
    return _png(_small(pixels))


def heat_picture(said: Judgement, pixels: Pixels) -> bytes:
    """Return an image with heat map and boxes as PNG, at most `SIDE` pixels a side."""
    return _png(_heat(said, pixels))


def explained_picture(found: DefectExplanation, pixels: Pixels) -> bytes:
    """Return an image as PNG, red where its score was raised most, with a box around the piece.

    What lowered the score is left gray; at most `SIDE` pixels a side.
    """
    most = max(float(found.map.max()), np.finfo(np.float64).tiny)
    heat = (np.maximum(found.map, 0) / most).astype(np.float32)
    top, left, bottom, right = found.region
    boxes = (Box(left, top, right, bottom),) if found.share else ()
    return _png(_heat(Judgement(found.score, heat, boxes=boxes), pixels))


def sheet(shown: Sequence[tuple[Sample, Judgement]]) -> bytes:
    """Return a PNG of judged images, each beside its heat map, with name, truth and score.

    Args:
        shown: At least one.
    """
    from PIL import Image, ImageDraw

    side = min(SIDE, max(length for sample, _ in shown for length in sample.pixels.shape[:2]))
    side = max(side, LEAST)
    wide, high = 2 * side + 3 * _GAP, side + _TEXT + _GAP
    rows = -(-len(shown) // COLUMNS)
    whole = Image.new("RGB", (wide * min(COLUMNS, len(shown)), high * rows), _PAPER)
    pen = ImageDraw.Draw(whole)
    for place, (sample, said) in enumerate(shown):
        left, top = wide * (place % COLUMNS) + _GAP, high * (place // COLUMNS) + _GAP
        for column, one in enumerate((_small(sample.pixels), _heat(said, sample.pixels))):
            whole.paste(one, (left + column * (side + _GAP), top + _TEXT))
        true = sample.kind or {"ok": "good", "ng": "defective"}.get(sample.label or "", "")
        lines = f"{sample.name[-70:]}\n{true}, score {said.score:.4g}"
        if said.kind:
            lines += f", named {said.kind}"
        pen.multiline_text((left, top - 2), _plain(lines), fill=_INK, spacing=1)
    return _png(whole)


def _small(pixels: Pixels) -> Image:
    from PIL import Image

    image = Image.fromarray(rgb(pixels))
    image.thumbnail((SIDE, SIDE))
    return image


def _heat(said: Judgement, pixels: Pixels) -> Image:
    from PIL import Image, ImageDraw

    image = Image.open(io.BytesIO(heat_png(said.heat, pixels))).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    across, down = image.width / pixels.shape[1], image.height / pixels.shape[0]
    for box in said.boxes:
        left, top = box.left * across, box.top * down
        right, bottom = box.right * across - 1, box.bottom * down - 1
        # A box of a large image may be thinner here than a pixel.
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=_LINE)
    return image


def _plain(text: str) -> str:
    """Return a text that the built-in font can write."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _png(image: Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()
