"""Where the tiles of a large image begin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

OVERLAP = 64
"""Pixels that neighbouring tiles share: a defect on a border is whole in one of them."""


def tiles(height: int, width: int, side: int | None) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of tiles of at most ``side`` pixels that cover an image.

    An image that is no larger, and every image where ``side`` is None, is one tile. They are those
    that a detector of `tasks.defects.detect` judges a large image in.
    """
    side = side or max(height, width)
    for top in _starts(height, side):
        for left in _starts(width, side):
            yield slice(top, top + side), slice(left, left + side)


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - OVERLAP) // (side - OVERLAP))
    return [int(start) for start in np.linspace(0, length - side, max(2, count))]
