"""Good images spoilt on purpose, so that what a flagged image suffers from can be named.

The test itself (`reference.py`) knows no faults: these only lend it their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.decode import Pixels

Floats = NDArray[np.float32]
BLUR, DARK, LIGHT = "blur", "dark", "light"
FAULTS = (BLUR, DARK, LIGHT)
SHADES = ((DARK, 0.6), (DARK, 0.35), (DARK, 0.15), (LIGHT, 1.4), (LIGHT, 2.0), (LIGHT, 3.0))
BLURS = ((3, 3), (5, 5), (9, 9), (1, 5), (5, 1), (1, 9), (9, 1))
"""Sizes of boxes whose means replace a pixel: out of focus, and moved along columns or rows."""


def spoilt(gray: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield a gray image with each fault, at several strengths.

    Args:
        gray: uint8 or uint16 [height, width].
    """
    white = np.iinfo(gray.dtype).max

    def stored(values: Floats) -> Pixels:
        return cast("Pixels", np.clip(np.rint(values), 0, white).astype(gray.dtype))

    values = gray.astype(np.float32)
    for name, factor in SHADES:
        yield name, stored(values * np.float32(factor))
    for rows, columns in BLURS:
        yield BLUR, stored(_means(_means(values, rows).T, columns).T)


def _means(values: Floats, size: int) -> Floats:
    """Return means over ``size`` rows."""
    if size == 1:
        return values
    half = size // 2
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    total = sum(padded[k : k + len(values)] for k in range(size))
    return np.asarray(total, np.float32) / np.float32(size)
