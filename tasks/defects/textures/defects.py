"""Defects of surfaces, each with the mask of what it changed.

A defect's contrast is measured by the spread of the surface around it and is small as often as it
is large: what is easy to see needs no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from tasks.defects.samples import Mask, Pixels
from tasks.defects.textures.fields import Field, Shape, fractal_noise, spectral_noise, value_noise
from tasks.defects.textures.layers import between
from tasks.defects.textures.marks import edge, patch, stroke, walk
from tasks.defects.textures.surface import draw_surface, to_pixels

LEAST_CHANGE = 2.0
"""Mean difference of a defect's pixels, in gray values of 255; below, it is drawn stronger."""
_LEAST_ALPHA = 0.15


def _sign(rng: Generator, dark: float = 0.5) -> float:
    return -1.0 if rng.random() < dark else 1.0


def _side(shape: Shape) -> float:
    return float(math.sqrt(shape[0] * shape[1]))


def _scratch(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    side = _side(field.shape)
    heading, width = rng.uniform(0, 2 * math.pi), between(rng, 0.7, 3.5)
    ways = [
        walk(field.shape, rng, between(rng, 0.15, 1) * side, heading, bend=0.5, jag=0.02)
        for _ in range(int(rng.choice((1, 1, 1, 2, 4))))
    ]
    alpha = stroke(field.shape, ways, width)
    change = np.float32(_sign(rng, 0.4) * amount) * alpha
    if rng.random() < 0.4:  # a burr beside the groove
        change -= np.float32(0.7) * np.roll(change, int(width) + 1, int(rng.integers(2)))
        alpha = np.maximum(alpha, np.abs(change) / np.float32(amount))
    return alpha, field + change


def _crack(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    side = _side(field.shape)
    heading, length = rng.uniform(0, 2 * math.pi), between(rng, 0.2, 0.9) * side
    ways = [walk(field.shape, rng, length, heading, bend=1.0, jag=0.6)]
    for _ in range(int(rng.integers(0, 4))):
        branch = walk(field.shape, rng, length * rng.uniform(0.2, 0.5), heading, bend=1.5, jag=0.7)
        ways.append(branch + ways[0][int(rng.integers(len(ways[0])))] - branch[0])
    alpha = stroke(field.shape, ways, between(rng, 0.7, 2.2))
    return alpha, field - np.float32(1.2 * amount) * alpha


def _pit(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    alpha, change = np.zeros((2, *field.shape), np.float32)
    rim = rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0
    for _ in range(int(rng.choice((1, 1, 2, 3, 6)))):
        radius = between(rng, 1.2, 0.07 * _side(field.shape) + 1.3)
        dot = patch(field.shape, rng, radius, rough=0.15, soft=0.7, stretch=rng.uniform(1, 1.6))
        change -= dot
        if rim:
            around = np.clip(4 * dot * (1 - dot), 0, 1)
            change += np.float32(rim) * np.roll(around, (1, 1), (0, 1))
        alpha = np.maximum(alpha, dot)
    alpha = np.maximum(alpha, np.minimum(np.abs(change), 1))
    return alpha, field + np.float32(1.2 * amount * _sign(rng, 0.15) * -1) * change


def _stain(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    radius = between(rng, 0.05, 0.3) * _side(field.shape)
    alpha = patch(field.shape, rng, radius, rough=rng.uniform(0.2, 0.8), soft=rng.uniform(0.1, 1))
    change = np.float32(0.7 * amount * _sign(rng, 0.7)) * alpha
    if rng.random() < 0.3:  # dried from its border inwards
        change *= np.float32(1.6) * (1 - alpha) + np.float32(0.25)
    return alpha, field + change


def _blob(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    radius = between(rng, 0.02, 0.12) * _side(field.shape) + 1
    alpha = patch(field.shape, rng, radius, rough=rng.uniform(0, 0.3), soft=rng.uniform(0.2, 1.2))
    return alpha, field + np.float32(1.2 * amount * _sign(rng)) * alpha


def _missing(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    radius = between(rng, 0.04, 0.22) * _side(field.shape) + 1
    alpha = patch(
        field.shape,
        rng,
        radius,
        rough=rng.uniform(0, 0.5),
        soft=rng.uniform(0.05, 0.4),
        stretch=rng.uniform(1, 3),
    )
    # What is underneath: as dark or as bright as the surface at its extremes, or between.
    under = np.float32(np.quantile(field[::4, ::4], rng.choice((0.05, 0.5, 0.95))))
    under += np.float32(0.3 * amount * rng.standard_normal())
    bare = under + np.float32(0.15 * field.std()) * value_noise(field.shape, 4, rng)
    return alpha, field + alpha * (bare - field)


def _foreign(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    """A piece of another surface (the idea of DRAEM, Zavrtanik et al. 2021)."""
    radius = between(rng, 0.05, 0.25) * _side(field.shape) + 1
    alpha = patch(field.shape, rng, radius, rough=0.5, soft=0.15, stretch=rng.uniform(1, 2.5))
    other = draw_surface("mixed", rng).render(field.shape, rng)
    other = (other - other.mean()) / (other.std() + np.float32(1e-4))
    other = field.mean() + np.float32(field.std() + 0.5 * amount) * other
    share = np.float32(rng.uniform(0.4, 1))
    return alpha, field + share * alpha * (other - field)


def _moved(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    """A pulled thread, a misprint: the surface itself, from a few pixels away."""
    radius = between(rng, 0.05, 0.2) * _side(field.shape) + 1.5
    alpha = patch(field.shape, rng, radius, rough=0.4, soft=0.1, stretch=rng.uniform(1, 3))
    far = rng.integers(2, max(int(radius), 3) + 1, 2) * rng.choice((-1, 1), 2)
    other = np.roll(field, tuple(far), (0, 1))
    if rng.random() < 0.4:
        other = np.rot90(other, 2)
    if rng.random() < 0.5:
        other = other + np.float32(0.3 * amount * _sign(rng))
    return alpha, field + alpha * (other - field)


def _inclusion(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    side = _side(field.shape)
    heading, dark = rng.choice((0.0, math.pi / 2)) + rng.normal(0, 0.1), _sign(rng, 0.8)
    alpha = np.zeros(field.shape, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        streak = patch(
            field.shape,
            rng,
            between(rng, 0.008, 0.04) * side + 0.6,
            rough=0.35,
            soft=0.6,
            stretch=between(rng, 2.5, 12),
            angle=heading + rng.normal(0, 0.05),
        )
        alpha = np.maximum(alpha, streak)
    return alpha, field + np.float32(dark * amount) * alpha


def _scale(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    radius = between(rng, 0.08, 0.3) * _side(field.shape)
    area = patch(field.shape, rng, radius, rough=0.6, soft=0.5, stretch=rng.uniform(1, 2.5))
    flakes = fractal_noise(field.shape, between(rng, 3, 9), 2, 0.6, rng)
    alpha = area * np.clip(2 * flakes - np.float32(rng.uniform(-0.5, 1)), 0, 1)
    return alpha, field + np.float32(amount * _sign(rng, 0.7)) * alpha


def _dent(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    radius = between(rng, 0.03, 0.13) * _side(field.shape) + 2
    bump = patch(field.shape, rng, radius, rough=0.1, soft=1.6, stretch=rng.uniform(1, 2))
    light = rng.uniform(0, 2 * math.pi)
    down, right = np.gradient(bump)
    lit = np.float32(math.sin(light)) * down + np.float32(math.cos(light)) * right
    lit /= np.float32(np.abs(lit).max() + 1e-6)
    return np.maximum(np.abs(lit), bump > 0.05), field + np.float32(1.2 * amount) * lit


def _fray(field: Field, rng: Generator, amount: float) -> tuple[Field, Field]:
    depth = between(rng, 0.03, 0.22) * _side(field.shape) + 1.5
    alpha = edge(field.shape, rng, depth, between(rng, 2, 12))
    behind = np.float32(field.mean() + (1.5 * amount + 0.05) * _sign(rng, 0.7))
    bare = behind + np.float32(0.2 * amount) * spectral_noise(field.shape, rng, slope=0.5)
    return alpha, field + alpha * (bare - field)


_MAKERS: dict[str, Callable[[Field, Generator, float], tuple[Field, Field]]] = {
    "scratch": _scratch,
    "crack": _crack,
    "pit": _pit,
    "stain": _stain,
    "blob": _blob,
    "missing": _missing,
    "foreign": _foreign,
    "moved": _moved,
    "inclusion": _inclusion,
    "scale": _scale,
    "dent": _dent,
    "fray": _fray,
}
DEFECTS = tuple(_MAKERS)
"""Kinds that `damage` and `add_defect` know."""


def damage(
    field: Field, kind: str, rng: Generator, strength: tuple[float, float] = (0.5, 4.0)
) -> tuple[Field, Mask]:
    """Put a defect on a surface.

    Args:
        field: float32 [h, w], brightness in [0, 1].
        kind: One of `DEFECTS`.
        rng: Source of randomness.
        strength: Weakest and strongest contrast, in spreads of the surface.

    Returns:
        The surface, equal to the given one outside of the mask, and the mask.

    Raises:
        ValueError: For an unknown kind, or a strength that is not positive.
    """
    if kind not in _MAKERS:
        raise ValueError(f"there is no defect {kind!r}; take one of {', '.join(DEFECTS)}")
    if not 0 < strength[0] <= strength[1]:
        raise ValueError(f"strength is {strength}; give 0 < weakest <= strongest")
    spread = float(field.std()) + 0.012
    for attempt in range(64):
        amount = between(rng, *strength) * spread * 1.15**attempt
        alpha, changed = _MAKERS[kind](field, rng, amount)
        mask = alpha > _LEAST_ALPHA
        if not mask.any():
            continue
        found = np.where(mask, changed, field)
        seen = np.clip(found[mask], 0, 1) - np.clip(field[mask], 0, 1)
        if float(np.abs(seen).mean()) * 255 >= LEAST_CHANGE:
            return found, mask
    raise ValueError(
        f"no defect {kind!r} shows on this surface of {field.shape}, mean {field.mean():.2f}; "
        "give a larger one with brightness inside [0, 1]"
    )


def add_defect(
    pixels: Pixels, kind: str, rng: Generator, strength: tuple[float, float] = (0.5, 4.0)
) -> tuple[Pixels, Mask]:
    """Put a defect on an image; see `damage`.

    Args:
        pixels: uint8 [h, w] or [h, w, 3], sides of at least 16; colours all change alike.
        kind: One of `DEFECTS`.
        rng: Source of randomness.
        strength: Weakest and strongest contrast, in spreads of the image.

    Raises:
        ValueError: For an unknown kind, or an image that is too small.
    """
    if min(pixels.shape[:2]) < 16:
        raise ValueError(f"an image of {pixels.shape} is too small; give sides of at least 16")
    gray = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    field = gray.astype(np.float32) / np.float32(255)
    changed, mask = damage(field, kind, rng, strength)
    if pixels.ndim == 2:
        return np.where(mask, to_pixels(changed), pixels), mask
    moved = pixels.astype(np.float32) / 255 + (changed - field)[:, :, None]
    return np.where(mask[:, :, None], to_pixels(moved), pixels), mask
