"""A generated line as a camera sees it: a part with an outline on a belt, and what can change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tasks.defects.samples import Pixels
from tasks.defects.textures.line import LineConfig, make_line

BELT = 25.0
FLICKER = 0.05
"""Spread of the exposure from image to image, as a logarithm."""


@dataclass(frozen=True)
class Look:
    """How the camera sees the belt.

    Attributes:
        right: Pixels that the part lies to the right.
        turn: Degrees it is turned against the clock.
        zoom: How many times as large it is.
        gain: Exposure.
        outline: Whether the part has an outline in the picture; else the surface fills it.
    """

    right: float = 0.0
    turn: float = 0.0
    zoom: float = 1.0
    gain: float = 1.0
    outline: bool = True


def surfaces(seed: int, number: int, texture: str = "cast") -> list[Pixels]:
    """Return the surfaces of so many parts; one in ten is defective, in an order by chance."""
    bad = number // 10
    kinds = {"scratch": -(-bad // 2), "pit": bad // 2}
    config = LineConfig(texture=texture, ok=number - bad, ng=kinds, exposure_spread=0.0, seed=seed)
    made = [sample.pixels for sample in make_line(config)]
    return [made[i] for i in np.random.default_rng(seed).permutation(len(made))]


def taken(surface: Pixels, look: Look, rng: np.random.Generator) -> Pixels:
    """Return the image of a part, about a pixel off its place and under a lamp that flickers."""
    side = surface.shape[0]
    rows, columns = np.mgrid[:side, :side] - side / 2 + rng.normal(0, 1, 2)[:, None, None]
    columns = columns - look.right
    turn = math.radians(look.turn)
    across = (np.cos(turn) * columns - np.sin(turn) * rows) / look.zoom
    along = (np.sin(turn) * columns + np.cos(turn) * rows) / look.zoom
    places = along + side / 2, across + side / 2
    image = ndimage.map_coordinates(surface.astype(np.float64), places, order=1, mode="reflect")
    if look.outline:
        plate = (np.abs(across) < 0.36 * side) & (np.abs(along) < 0.27 * side)
        hole = (across - 0.15 * side) ** 2 + along**2 < (0.06 * side) ** 2
        inside = ndimage.gaussian_filter((plate & ~hole).astype(np.float64), 0.7)
        image = inside * image + (1 - inside) * BELT
    gain = look.gain * float(np.exp(FLICKER * rng.standard_normal()))
    return np.clip(np.rint(image * gain), 0, 255).astype(np.uint8)


def rough_score(image: Pixels) -> float:
    """Return how far the most unusual spot of an image is from its surroundings."""
    gray = image.astype(np.float64)
    inner = slice(len(gray) // 4, -len(gray) // 4)
    away = np.abs(gray - ndimage.uniform_filter(gray, 15))[inner, inner]
    return float(np.log((np.sort(away.ravel())[-20:].mean() + 1) / (np.median(away) + 1)))
