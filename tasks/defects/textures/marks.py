"""Shapes of defects: strokes and patches as float32 [h, w] in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from tasks.defects.textures.fields import Field, Shape, value_noise

Path = NDArray[np.float32]
"""float32 [k, 2], rows and columns of a pen."""


def walk(
    shape: Shape, rng: Generator, length: float, heading: float, *, bend: float, jag: float
) -> Path:
    """Return the way of a pen that starts inside the image, two points per pixel.

    Args:
        shape: Height and width of the image.
        rng: Source of randomness.
        length: Pixels.
        heading: First direction in radians, 0 to the right.
        bend: Radians that it turns over its length, at random.
        jag: Radians by which it strays every few pixels.
    """
    count = max(int(2 * length), 2)
    corners = rng.normal(0, jag, count // 8 + 1).repeat(8)[:count]
    turn = heading + np.linspace(-0.5, 0.5, count) * rng.normal(0, bend) + corners
    steps = 0.5 * np.stack([np.sin(turn), np.cos(turn)], 1)
    way = np.cumsum(steps, 0)
    way += rng.uniform(0.1, 0.9, 2) * np.asarray(shape) - way[count // 2]
    found: Path = way.astype(np.float32)
    return found


def stroke(shape: Shape, ways: list[Path], width: float) -> Field:
    """Draw pens of a width in pixels; 0 everywhere where all of them leave the image."""
    found = np.zeros(shape, np.float32)
    points = np.rint(np.concatenate(ways)).astype(np.intp)
    inside = ((points >= 0) & (points < np.asarray(shape))).all(1)
    points = points[inside]
    if not len(points):
        return found
    found[points[:, 0], points[:, 1]] = 1
    sigma = max(width / 2.5, 0.35)
    margin = math.ceil(3 * sigma) + 1
    low = np.maximum(points.min(0) - margin, 0)
    high = points.max(0) + margin + 1
    part = found[low[0] : high[0], low[1] : high[1]]
    part[:] = ndimage.gaussian_filter(part, sigma, truncate=3)
    peak = float(part.max())
    part[:] = np.minimum(part * np.float32(1.4 / peak), 1)
    return found


def patch(
    shape: Shape,
    rng: Generator,
    radius: float,
    *,
    rough: float = 0.5,
    soft: float = 0.2,
    stretch: float = 1.0,
    angle: float | None = None,
) -> Field:
    """Draw an ellipse with a rough border.

    Args:
        shape: Height and width of the image.
        rng: Source of randomness.
        radius: Pixels of the shorter half axis.
        rough: How far the border strays, in radii.
        soft: Width of the border, in radii.
        stretch: Longer by shorter axis.
        angle: Direction of the longer one; at random if None.
    """
    turn = rng.uniform(0, math.pi) if angle is None else angle
    top, left = rng.uniform(0.08, 0.92, 2) * np.asarray(shape)
    y = (np.arange(shape[0], dtype=np.float32) - np.float32(top))[:, None]
    x = (np.arange(shape[1], dtype=np.float32) - np.float32(left))[None, :]
    cosine, sine = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along = (x * cosine + y * sine) / np.float32(radius * stretch)
    across = (y * cosine - x * sine) / np.float32(radius)
    far = np.sqrt(along * along + across * across)
    if rough:
        far += np.float32(rough) * value_noise(shape, max(radius * 0.7, 2), rng)
    found: Field = np.clip((1 - far) / np.float32(max(soft, 1 / radius)) + 0.5, 0, 1)
    return found


def edge(shape: Shape, rng: Generator, depth: float, raggedness: float) -> Field:
    """Draw what is broken or frayed off at one of the four edges, ``depth`` pixels deep."""
    side = int(rng.integers(4))
    length = shape[side % 2]
    profile = value_noise((length, 8), max(raggedness, 2), rng)[:, 0]
    span = rng.uniform(0.2, 1.2) * length
    middle = rng.uniform(0, length)
    hill = 1 - ((np.arange(length) - middle) / span) ** 2
    border = np.float32(depth) * np.maximum(hill + 0.4 * profile, 0).astype(np.float32)
    across = np.arange(shape[1 - side % 2], dtype=np.float32)
    found: Field = np.clip(border[:, None] - across[None, :], 0, 1)
    if side >= 2:
        found = found[:, ::-1]
    return found if side % 2 == 0 else found.T
