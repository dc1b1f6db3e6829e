"""Masks as people keep them: gray, noisy, of two or many levels, of another size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.decode import Pixels
from tasks.defects.samples import Mask

FEW_LEVELS = 32
"""Where no mask of a folder is brighter, its levels are numbers of types, not shades."""
MOST_BETWEEN = 0.3
"""Share of pixels neither dark nor light above which a file is a picture, not a mask."""
DARK, LIGHT = 64, 191


class MaskError(ValueError):
    """A mask that cannot be used; says why."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskFacts:
    """What was measured on a mask.

    Attributes:
        width: Of the file.
        height: Of the file.
        brightest: The highest level, of 0 to 255.
        between: Share of pixels from 64 to 191, which masks have only along edges.
        soft: Whether there are levels beside its darkest and its brightest.
        counts: int64 [256], pixels of each level.
    """

    width: int
    height: int
    brightest: int
    between: float
    soft: bool
    counts: NDArray[np.int64]

    def marked(self, threshold: int) -> int:
        """Return how many pixels are of a level or above."""
        return int(self.counts[threshold:].sum())


def levels(pixels: Pixels) -> NDArray[np.uint8]:
    """Return the levels of a mask, uint8 [h, w]: the brightest channel, 16 bits brought to 8."""
    values = pixels.max(2) if pixels.ndim == 3 else pixels
    if values.max() > np.iinfo(np.uint8).max:
        values = values // 256
    return values.astype(np.uint8)


def mask_facts(pixels: Pixels) -> MaskFacts:
    """Measure a mask, uint8 or uint16 [h, w] or [h, w, 3]."""
    gray = levels(pixels)
    counts = np.bincount(gray.ravel(), minlength=256)
    return MaskFacts(
        width=gray.shape[1],
        height=gray.shape[0],
        brightest=int(gray.max()),
        between=float(counts[DARK : LIGHT + 1].sum() / gray.size),
        soft=int(np.count_nonzero(counts)) > 2,
        counts=counts,
    )


def usual_threshold(facts: Iterable[MaskFacts]) -> int:
    """Return the level from which pixels are on the defect: 1 for numbers of types, else 128.

    It is one for all masks of a folder: the noise of an empty mask stored as JPEG looks like
    numbers of types, but others of its folder do not.
    """
    brightest = max((one.brightest for one in facts), default=255)
    return 1 if 0 < brightest <= FEW_LEVELS else 128


def fitted(facts: MaskFacts, width: int, height: int, *, resize: bool) -> None:
    """Refuse a mask that is a picture, or that does not fit to its image.

    Args:
        facts: Of the mask.
        width: Of the image.
        height: Of the image.
        resize: Whether a mask of the same shape may have another size.

    Raises:
        MaskError: Names both sizes, or the share of gray.
    """
    if facts.between > MOST_BETWEEN:
        raise MaskError(f"{facts.between:.0%} of the pixels are neither dark nor light")
    if (facts.width, facts.height) == (width, height):
        return
    sizes = f"mask {facts.width} x {facts.height}, image {width} x {height}"
    # Sides are whole numbers: each of the smaller one may be off by not quite a pixel.
    off = abs(facts.width * height - facts.height * width)
    same_shape = off <= max(width, height, facts.width, facts.height)
    if not (resize and same_shape):
        raise MaskError(sizes + ("" if same_shape else ", of another shape"))


def binary_mask(pixels: Pixels, threshold: int, width: int, height: int) -> Mask:
    """Return the mask of an image, bool [height, width]; another size is brought to it.

    Args:
        pixels: uint8 or uint16 [h, w] or [h, w, 3].
        threshold: Level of 0 to 255 from which a pixel is on the defect.
        width: Of the image.
        height: Of the image.
    """
    marked = levels(pixels) >= threshold
    if marked.shape == (height, width):
        return marked
    rows = (np.arange(height) + 0.5) * marked.shape[0] / height
    columns = (np.arange(width) + 0.5) * marked.shape[1] / width
    return np.asarray(marked[np.ix_(rows.astype(np.int64), columns.astype(np.int64))])
