"""Synthetic areas that were finished unlike their surroundings, such as ground twice or not at all.

What tells them from the surroundings is where the grain breaks off, seldom the level. The area
shows detail of the line itself, shifted or of another image, at another contrast, perhaps smeared
along the grain, mostly on a level of its own. Borders lie mostly across the columns of the image.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tasks.defects.samples import Mask
from tasks.defects.textures.fields import Field, Shape, value_noise
from tasks.defects.textures.layers import between

LEAST_SEEN = 0.015
"""Mean change of an area below which nobody would see it; as a share of the range of levels."""
LEAST_PIXELS = 40
Surface = NDArray[np.float32]
"""float32 [h, w, channels] in [0, 1]."""
_STRIPE, _FAR, _SMEARED = 0.3, 0.25, 0.3


def with_seam(surface: Surface, donor: Surface, rng: Generator) -> tuple[Surface, Mask]:
    """Return a copy with one area of another finish, and its mask.

    Args:
        surface: float32 [h, w, c], a piece of a normal image, at least 16 x 16.
        donor: float32 of the same shape, a piece of the same image or of another.
        rng: Source of all that is random.

    Returns:
        float32 [h, w, c] in [0, 1] and bool [h, w]; the mask is empty if nothing drawn is visible.
    """
    shape = surface.shape[:2]
    field = _band(shape, rng) if rng.random() < 0.6 else _patch(shape, rng)
    alpha = np.clip(field / np.float32(between(rng, 1, 6)) + np.float32(0.5), 0, 1)
    if alpha.mean() > 0.5:  # whichever is smaller is the odd one
        alpha = 1 - alpha
    mask = alpha > 0.5
    made = surface + alpha[..., None] * (_finish(surface, donor, rng) - surface)
    made = np.clip(made, 0, 1).astype(np.float32)
    if mask.sum() < LEAST_PIXELS or float(np.abs(made - surface)[mask].mean()) < LEAST_SEEN:
        return surface.copy(), np.zeros(shape, dtype=np.bool_)
    return made, mask


def _finish(surface: Surface, donor: Surface, rng: Generator) -> Surface:
    """Return detail of the donor on the level of the surface, or on its own."""
    from scipy.ndimage import uniform_filter

    if rng.random() < 0.5:
        donor = donor[:, ::-1]
    reach = int(rng.integers(15, 60))
    own = uniform_filter(surface, (reach, reach, 1), mode="nearest")
    level = uniform_filter(donor, (reach, reach, 1), mode="nearest")
    detail = (donor / np.maximum(level, 0.02) - 1) * math.exp(rng.uniform(-1.0, 0.8))
    if rng.random() < _SMEARED:
        detail = uniform_filter(detail, (int(rng.integers(1, 25)), 1, 1), mode="nearest")
    if rng.random() < 0.5:
        own = level * (surface.mean() / max(float(donor.mean()), 0.02))
    return np.asarray(own * math.exp(rng.normal(0, 0.22)) * (1 + detail), dtype=np.float32)


def _wave(shape: Shape, rng: Generator) -> Field:
    noise = value_noise(shape, between(rng, 10, 80), rng)
    return np.asarray(noise * np.float32(between(rng, 0.5, 12)), dtype=np.float32)


def _band(shape: Shape, rng: Generator) -> Field:
    """Pixels beyond a wavy border, or within a stripe."""
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < _FAR else rng.normal(0, 0.12)
    down, right = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    row, column = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    field = (down - row) * math.cos(angle) + (right - column) * math.sin(angle) + _wave(shape, rng)
    if rng.random() < _STRIPE:
        field = np.minimum(field, between(rng, 12, 90) - field)
    return np.asarray(field, dtype=np.float32)


def _patch(shape: Shape, rng: Generator) -> Field:
    """Pixels inside of an ellipse that may be nearly a rectangle."""
    down, right = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    tall, wide = between(rng, 10, 74), between(rng, 10, 74)
    power = between(rng, 2, 8)
    far = (np.abs(down - row) / tall) ** power + (np.abs(right - column) / wide) ** power
    return np.asarray((1 - far ** (1 / power)) * min(tall, wide) + _wave(shape, rng), np.float32)
