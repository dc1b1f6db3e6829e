"""Turns by EXIF: what was drawn on an image as it is stored, brought to it as it is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Box

Value = TypeVar("Value", bound=np.generic)


def turned(pixels: NDArray[Value], orientation: int) -> NDArray[Value]:
    """Return pixels [h, w, ...] upright.

    Args:
        pixels: As they are stored.
        orientation: EXIF's, 1 to 8 (CIPA DC-008, tag 0x0112).
    """
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return pixels


def turned_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Return a box of an image as it is stored, in the image as it is shown.

    Args:
        box: In pixels of the stored image.
        orientation: EXIF's, 1 to 8.
        width: Of the stored image.
        height: Of the stored image.
    """
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    if orientation in {5, 6, 7, 8}:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if orientation in {2, 3, 6, 7}:
        left, right = width - right, width - left
    if orientation in {3, 4, 7, 8}:
        top, bottom = height - bottom, height - top
    return replace(box, left=left, top=top, right=right, bottom=bottom)


def stored_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height as stored, of those as shown."""
    return (height, width) if orientation in {5, 6, 7, 8} else (width, height)
