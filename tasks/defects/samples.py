"""What is known of one image of a line: its pixels, what people said of it, the part it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""uint8 [h, w] (gray) or [h, w, 3] (RGB)."""
Mask = NDArray[np.bool_]
"""bool [h, w], true on the defect."""
Label = Literal["ok", "ng"]


DEEPEST = 16
"""Bits of a pixel of a deep image, where nobody knows how many of them a camera uses."""


class SampleError(ValueError):
    """A sample that contradicts itself; says which, how, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an image, in pixels; the right and bottom edges lie outside of it.

    Attributes:
        left: First column.
        top: First row.
        right: Column behind the last.
        bottom: Row behind the last.
        kind: Type of the defect, "" where nobody named it.
        score: How sure a detector is, 1 for a person's.
    """

    left: float
    top: float
    right: float
    bottom: float
    kind: str = ""
    score: float = 1.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (self.left < self.right and self.top < self.bottom):
            raise SampleError(
                f"box {self.left, self.top, self.right, self.bottom} holds no pixel; "
                "give left < right and top < bottom"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image.

    Attributes:
        name: Path within its dataset, unique there.
        pixels: uint8 [h, w] or [h, w, 3].
        label: ``ok``, ``ng`` (defective), or None where nobody looked.
        kind: Type of the defect; "" where there is none or nobody named it.
        mask: bool [h, w] of the defect, None where nobody drew it.
        boxes: Rectangles of defects.
        part: The physical part that it shows; images of one part never straddle a split.
            "" means that each image is a part of its own.
    """

    name: str
    pixels: Pixels
    label: Label | None = None
    kind: str = ""
    mask: Mask | None = None
    boxes: tuple[Box, ...] = ()
    part: str = ""

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or not (
            len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
        ):
            raise SampleError(
                f"{self.name}: pixels are {self.pixels.dtype} {shape}; "
                "give uint8 [h, w] or [h, w, 3]"
            )
        if self.mask is not None and (self.mask.shape != shape[:2] or self.mask.dtype != np.bool_):
            raise SampleError(
                f"{self.name}: the mask is {self.mask.dtype} {self.mask.shape}, the image "
                f"{shape[:2]}; give a bool mask of the image's size"
            )
        if self.label == "ok" and (self.kind or self.boxes or _marked(self.mask)):
            raise SampleError(
                f"{self.name}: labelled ok, but with a defect's type, mask or box; "
                "label it ng, or take those away"
            )


def eight_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16], bits: int = DEEPEST) -> Pixels:
    """Return pixels in 8 bits: of deeper ones the upper eight of those that are in use.

    Args:
        pixels: uint8 as they are, or uint16.
        bits: In use of uint16, 8 to 16; what is brighter than they allow becomes white.
    """
    if pixels.dtype == np.uint16:
        return np.minimum(pixels >> (bits - 8), 255).astype(np.uint8)
    return pixels.astype(np.uint8, copy=False)


def rgb(pixels: Pixels) -> Pixels:
    """Return uint8 [h, w, 3]; gray values are repeated."""
    if pixels.ndim == 3:
        return pixels
    return np.repeat(pixels[:, :, None], 3, axis=2)


def parts_of(samples: Sequence[Sample]) -> list[str]:
    """Return the part of each sample, its name where it has none."""
    return [sample.part or f"\0{sample.name}" for sample in samples]


def _marked(mask: Mask | None) -> bool:
    return mask is not None and bool(mask.any())
