"""Brings an image to the gray values that the texture descriptors measure."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.features import gray_of
from tasks.defects.samples import Pixels

Gray = NDArray[np.float32]
LEAST_SIDE = 24
"""Shorter images are continued by their mirror image, so that every descriptor has room."""


def prepared(pixels: Pixels, longest: int) -> Gray:
    """Return gray levels, float32 [h, w] in 0 to 255.

    Args:
        pixels: uint8 [h, w] or [h, w, 3].
        longest: Images of a longer side are brought down to it (means over areas); no image is
            enlarged, since texture of its own size is what the descriptors compare.
    """
    gray: NDArray[Any] = gray_of(pixels)
    if max(gray.shape) > longest:
        from PIL import Image

        factor = longest / max(gray.shape)
        height, width = (max(1, round(side * factor)) for side in gray.shape)
        gray = np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BOX))
    lacking = [max(0, LEAST_SIDE - side) for side in gray.shape]
    if any(lacking):
        gray = np.pad(gray, [(0, more) for more in lacking], mode="symmetric")
    return gray.astype(np.float32)


def digest_of(pixels: Pixels) -> str:
    """Return SHA-256 of shape and pixels: the key that descriptors are kept under."""
    shape = np.array(pixels.shape, np.int64).tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()
