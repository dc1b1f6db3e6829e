"""Synthetic defects on a user's own normal images, so that a segmentation head learns without any.

Half are local ones of the generator, one in four is a smooth line, such as a hairline crack, where
the line's own texture is darker or brighter. The others change a whole area with what the line
itself shows: a piece of another normal image (CutPaste, Li et al., CVPR 2021; NSA, Schlüter et al.,
ECCV 2022), other light, texture rubbed off or rougher. DRAEM (Zavrtanik et al., ICCV 2021) pastes
foreign texture; the generator has that among its kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tasks.defects.samples import Mask
from tasks.defects.textures.defects import DEFECTS, damage
from tasks.defects.textures.fields import Field, Shape, coordinates, value_noise
from tasks.defects.textures.layers import between
from tasks.defects.textures.marks import stroke, walk

Surface = NDArray[np.float32]
"""float32 [h, w, channels] in [0, 1]."""
LEAST_SEEN = 0.02
"""Mean change of an area below which nobody would see it; as a share of the range of levels."""
STRENGTH = (1.0, 6.0)
TRIES = 8
_LOCAL, _LINES = 0.45, 0.25


def with_defect(surface: Surface, donor: Surface, rng: Generator) -> tuple[Surface, Mask]:
    """Return a copy with one synthetic defect, and its mask.

    Args:
        surface: float32 [h, w, c], a piece of a normal image, at least 16 x 16.
        donor: float32 of the same shape, a piece of another.
        rng: Source of all that is random.

    Returns:
        float32 [h, w, c] in [0, 1] and bool [h, w]; the mask is empty if nothing drawn is visible.
    """
    which = rng.random()
    if which < _LOCAL:
        gray = surface.mean(axis=2)
        kind = DEFECTS[int(rng.integers(len(DEFECTS)))]
        try:
            changed, mask = damage(gray, kind, rng, STRENGTH)
        except ValueError:  # a piece wholly black or white shows nothing
            return surface.copy(), np.zeros(gray.shape, dtype=np.bool_)
        made = surface + (changed - gray)[..., None]
        return np.clip(made, 0, 1).astype(np.float32), mask
    if which < _LOCAL + _LINES:
        alpha = _line(surface.shape[:2], rng)
        mask, made = alpha > 0.3, surface * (1 + alpha[..., None] * _tint(rng))
        made = np.clip(made, 0, 1).astype(np.float32)
        seen = mask.any() and float(np.abs(made - surface)[mask].mean()) >= LEAST_SEEN / 2
        return (made, mask) if seen else (surface.copy(), np.zeros_like(mask))
    for _ in range(TRIES):
        area = _AREAS[int(rng.integers(len(_AREAS)))](surface.shape[:2], rng)
        mask = area > 0.5
        if not 16 <= mask.sum() <= 0.8 * mask.size:
            continue
        inside = _FILLINGS[int(rng.integers(len(_FILLINGS)))](surface, donor, rng)
        made = np.clip(surface + area[..., None] * (inside - surface), 0, 1).astype(np.float32)
        if float(np.abs(made - surface)[mask].mean()) >= LEAST_SEEN:
            return made, mask
    return surface.copy(), np.zeros(surface.shape[:2], dtype=np.bool_)


def _line(shape: Shape, rng: Generator) -> Field:
    """A smooth line with soft borders, along any direction, often along columns or rows."""
    heading = float(rng.integers(4)) * math.pi / 2 + float(rng.normal(0, 0.3))
    if rng.random() < 0.5:
        heading = float(rng.uniform(0, 2 * math.pi))
    length = between(rng, 0.1, 1.2) * max(shape)
    way = walk(shape, rng, length, heading, bend=1.2, jag=float(rng.uniform(0, 0.4)))
    return stroke(shape, [way], between(rng, 1.0, 7.0))


def _tint(rng: Generator) -> np.float32:
    """Return by which share a line is darker, seldom brighter."""
    share = between(rng, 0.2, 0.8)
    return np.float32(-share if rng.random() < 0.8 else share)


def _rim(field: Field, width: float) -> Field:
    """Return 0 to 1 across so many pixels where the field, in pixels, passes 0."""
    return np.clip(field / np.float32(width) + np.float32(0.5), 0, 1).astype(np.float32)


def _ellipse(shape: Shape, rng: Generator) -> Field:
    """An ellipse from a few pixels to most of the piece, ragged."""
    long = between(rng, 12, 0.6 * max(shape) + 13)
    wide = long * float(rng.uniform(0.3, 1))
    along, across = coordinates(shape, float(rng.uniform(0, math.pi)))
    row, column = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    ragged = np.float32(rng.uniform(0, 0.35)) * value_noise(shape, max(2.0, wide), rng)
    u, v = along - along[row, column], across - across[row, column]
    far = np.sqrt((u / long) ** 2 + (v / wide) ** 2)
    return _rim((1 + ragged - far) * np.float32(wide), between(rng, 1, 8))


def _beyond(shape: Shape, rng: Generator) -> Field:
    """All that lies beyond a wavy border."""
    angle = float(rng.integers(4)) * math.pi / 2 + float(rng.normal(0, 0.3))
    along, _ = coordinates(shape, angle)
    row, column = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    wave = value_noise(shape, between(rng, 10, 80), rng) * np.float32(between(rng, 0.5, 12))
    return _rim(along - along[row, column] + wave, between(rng, 1, 6))


def _clouds(shape: Shape, rng: Generator) -> Field:
    """Where smooth noise is high."""
    period = between(rng, 8, 60)
    noise = value_noise(shape, period, rng) - np.float32(rng.uniform(0.4, 1.4))
    return _rim(noise * np.float32(period / 2), between(rng, 1, 6))


def _level(surface: Surface, donor: Surface, rng: Generator) -> Surface:  # noqa: ARG001
    """The same texture under other light."""
    return surface * np.float32(math.exp(float(rng.choice([-1, 1])) * between(rng, 0.12, 0.6)))


def _smooth(surface: Surface, donor: Surface, rng: Generator) -> Surface:  # noqa: ARG001
    """Texture rubbed off, level moved."""
    from scipy.ndimage import uniform_filter

    side = 2 * int(rng.integers(2, 9)) + 1
    blurred = uniform_filter(surface, (side, side, 1), mode="nearest")
    return np.asarray(blurred * np.float32(math.exp(rng.normal(0, 0.25))), dtype=np.float32)


def _rough(surface: Surface, donor: Surface, rng: Generator) -> Surface:  # noqa: ARG001
    """The same texture with more or less contrast."""
    mean = surface.mean(axis=(0, 1), keepdims=True)
    gain = math.exp(float(rng.choice([-1, 1])) * between(rng, 0.4, 1.2))
    return np.asarray(mean + (surface - mean) * np.float32(gain), dtype=np.float32)


def _other(surface: Surface, donor: Surface, rng: Generator) -> Surface:  # noqa: ARG001
    """Another piece of the line at another brightness, turned where it is a square."""
    turns = int(rng.integers(4)) if len(donor) == donor.shape[1] else 2 * int(rng.integers(2))
    return np.rot90(donor, turns) * np.float32(math.exp(rng.normal(0, 0.35)))


_AREAS: tuple[Callable[[Shape, Generator], Field], ...] = (_ellipse, _beyond, _clouds)
_FILLINGS: tuple[Callable[[Surface, Surface, Generator], Surface], ...] = (
    _level,
    _smooth,
    _rough,
    _other,
)
