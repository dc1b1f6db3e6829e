"""From decoded pixels to what a scorer takes: one definition, trained with and exported.

Resizing is the antialiased triangle filter of `torch.nn.functional.interpolate` (Pillow's
``BILINEAR``), in float32, without rounding to levels; ONNX has the same filter as ``Resize`` with
``antialias = 1, exclude_outside = 1``, which differs by less than .01 of 255 levels. An image that
has the wanted size already passes unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tasks.defects.samples import Pixels, rgb

LEVELS = 255.0


def prepare(pixels: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return float32 [1, 3, height, width] in [0, 1].

    Args:
        pixels: uint8 [h, w, 3].
        size: Wanted height and width; None keeps the image's own.
    """
    image = pixels.permute(2, 0, 1).unsqueeze(0).float()
    if size is not None:
        image = functional.interpolate(
            image, size=size, mode="bilinear", antialias=True, align_corners=False
        )
    return image / LEVELS


def prepare_pixels(pixels: Pixels, size: tuple[int, int] | None) -> Tensor:
    """Return float32 [1, 3, height, width] in [0, 1] of a gray or RGB image; see `prepare`."""
    return prepare(torch.from_numpy(rgb(pixels).copy()), size)
