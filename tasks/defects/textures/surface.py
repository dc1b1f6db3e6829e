"""Surfaces: one to three layers, a level and a contrast."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from tasks.defects.samples import Pixels
from tasks.defects.textures.fields import Field, Shape, fractal_noise
from tasks.defects.textures.layers import (
    Brushed,
    Cast,
    Cells,
    Layer,
    Perlin,
    Specks,
    Stripes,
    Weave,
    between,
)
from tasks.defects.textures.prints import Glyphs, Traces

LAYERS: dict[str, Callable[[Generator], Layer]] = {
    "perlin": Perlin.draw,
    "stripes": Stripes.draw,
    "weave": Weave.draw,
    "brushed": Brushed.draw,
    "cast": Cast.draw,
    "cells": Cells.draw,
    "specks": Specks.draw,
    "print": Glyphs.draw,
    "pcb": Traces.draw,
}
"""Family of a surface -> draws its main layer."""
TEXTURES = (*LAYERS, "metal", "mixed")
"""Kinds that `draw_surface` and `make_texture` know."""
_METAL = (("brushed",), ("cast", "perlin", "brushed"), ("specks", "perlin", "cast"))


@dataclass(frozen=True, slots=True)
class Surface:
    """What the parts of one production line look like.

    Attributes:
        family: Of the strongest layer.
        layers: What it is made of.
        weights: Share of each.
        level: Mean brightness in [0, 1].
        contrast: Spread of the brightness.
        regions: Pixels of the regions in which the layers change places; 0 where they add up.
    """

    family: str
    layers: tuple[Layer, ...]
    weights: tuple[float, ...]
    level: float
    contrast: float
    regions: float = 0.0

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one part, float32 [h, w], mostly in [0, 1] but not clipped."""
        drawn = [layer.render(shape, rng) for layer in self.layers]
        total = np.zeros(shape, np.float32)
        if self.regions and len(drawn) > 1:
            place = np.tanh(3 * fractal_noise(shape, self.regions, 2, 0.5, rng))
            drawn[:2] = [drawn[0] * (1 + place) / 2, drawn[1] * (1 - place) / 2]
        for weight, layer in zip(self.weights, drawn, strict=True):
            total += np.float32(weight) * layer
        total *= np.float32(self.contrast / math.hypot(*self.weights))
        total += np.float32(self.level)
        return total


def draw_surface(kind: str, rng: Generator) -> Surface:
    """Draw the parameters of a surface.

    Args:
        kind: One of `TEXTURES`; ``mixed`` lays two or three families over each other, ``metal``
            does so with those of rolled, ground and cast metal, at low contrast.
        rng: Source of randomness.

    Raises:
        ValueError: For an unknown kind.
    """
    if kind not in TEXTURES:
        raise ValueError(f"there is no texture {kind!r}; take one of {', '.join(TEXTURES)}")
    count = 1 if kind in LAYERS else int(rng.integers(2, 4))
    families = [kind]
    if kind == "mixed":
        families = list(rng.choice(list(LAYERS), count))
    elif kind == "metal":
        families = [str(rng.choice(choice)) for choice in _METAL[:count]]
    weights = np.sort(rng.uniform(0.25, 1, count))[::-1]
    lowest, highest = (0.02, 0.1) if kind == "metal" else (0.03, 0.25)
    return Surface(
        family=str(families[0]),
        layers=tuple(LAYERS[str(family)](rng) for family in families),
        weights=tuple(float(weight) for weight in weights),
        level=float(rng.uniform(0.25, 0.75)),
        contrast=between(rng, lowest, highest),
        regions=float(rng.uniform(16, 80)) if count > 1 and rng.random() < 0.3 else 0.0,
    )


def varied(surface: Surface, rng: Generator, amount: float) -> Surface:
    """Return the surface as another part of the same line has it.

    Args:
        surface: The line's.
        rng: Source of randomness.
        amount: Spread of the relative change of the contrast; the level moves by a tenth of it.
    """
    return replace(
        surface,
        level=surface.level + 0.1 * amount * float(rng.standard_normal()),
        contrast=surface.contrast * math.exp(amount * float(rng.standard_normal())),
    )


def to_pixels(field: Field) -> Pixels:
    """Return uint8 [h, w] of brightness in [0, 1]; what lies outside is clipped."""
    return np.clip(field * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)


def make_texture(kind: str, size: int | Shape, rng: Generator) -> Pixels:
    """Return a flawless surface as uint8 [h, w], before any camera.

    Args:
        kind: One of `TEXTURES`.
        size: Height and width, or both at once.
        rng: Source of randomness; the same state gives the same pixels.

    Raises:
        ValueError: For an unknown kind, or a side below 8 pixels.
    """
    shape = (size, size) if isinstance(size, int) else size
    if min(shape) < 8:
        raise ValueError(f"a texture of {shape} is too small; give sides of at least 8 pixels")
    return to_pixels(draw_surface(kind, rng).render(shape, rng))
