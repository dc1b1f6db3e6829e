"""The look at about half the size, where an area has more of its surroundings.

A net is trained on pieces, each brought to one mean and spread by itself, and never sees a border
farther away than theirs. What it says of a whole image, whose light varies more and whose middle is
far from all borders, is worse: areas above all, which can only be told from their surroundings. So
this look is made of squares that are judged by themselves. Their side is fixed, since the file on
the edge takes images of any size: they are brought to the nearest multiple of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

SQUARE = 96
"""Side of a square in pixels of the look: the least piece that a net is trained on has 112."""


def look_far(judge: Callable[[Tensor], Tensor], pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps of the image at about half its size, brought to the height and width given.

    Args:
        judge: As of `by_squares`.
        pixels: As of `by_squares`.
        size: Of the maps of the image at its own size.

    Returns:
        float [n, c, *size].
    """
    return functional.interpolate(
        by_squares(judge, pixels), size=size, mode="bilinear", align_corners=False
    )


def by_squares(judge: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Return maps of the image at about half its size, put together of squares.

    Args:
        judge: Maps [k, c, ...] of pixels [k, 3, ...], of a quarter of their height and width.
        pixels: float [n, 3, h, w] in [0, 1]. Below two squares a side is halved and not cut.

    Returns:
        float [n, c, about h / 8, about w / 8].
    """
    count, channels, height, width = pixels.shape
    rows, columns = squares(height), squares(width)
    tall, wide = (cast("int", torch.sym_min(SQUARE, side // 2)) for side in (height, width))
    # Twice smaller by means, then by what is left: nothing between the pixels is skipped.
    small = functional.interpolate(
        halved(pixels),
        size=(rows * tall, columns * wide),
        mode="bilinear",
        align_corners=False,
    )
    apart = small.reshape(count, channels, rows, tall, columns, wide).permute(0, 2, 4, 1, 3, 5)
    maps = judge(apart.reshape(-1, channels, tall, wide))
    down, right = maps.shape[-2:]
    beside = maps.reshape(count, rows, columns, -1, down, right).permute(0, 3, 1, 4, 2, 5)
    return beside.reshape(count, -1, rows * down, columns * right)


def squares(side: int) -> int:
    """Return how many squares a side of so many pixels is cut into."""
    # Not `max`, which would tie an exported graph to one side of the comparison.
    return cast("int", torch.sym_max(1, (side + SQUARE) // (2 * SQUARE)))


def halved(pixels: Tensor) -> Tensor:
    """Return the means of 2 x 2 pixels, [n, c, h // 2, w // 2].

    As a Resize, which ONNX Runtime computes in a quarter of the time of its average pool.
    """
    return functional.interpolate(
        pixels, scale_factor=0.5, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
