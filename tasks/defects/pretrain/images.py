"""Batches of generated images, each a function of its number.

Surfaces come in pairs of siblings that share most of what they are made of, and each is rendered
twice: to tell the four images apart, a net has to see the statistics of the texture and the type
of the defect, not the brightness or the place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tasks.defects.pretrain.recipe import PretrainConfig
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.defects import DEFECTS, damage
from tasks.defects.textures.fields import Field
from tasks.defects.textures.surface import LAYERS, Surface, draw_surface, varied

FAMILIES = tuple(LAYERS)
FRAMED = 0.3
"""Share of the images in which a border of the part is seen; it is no defect."""
CELL = 4
"""Pixels of the image per cell of the net's dense map."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One batch of n images.

    Attributes:
        pixels: uint8 [n, crop, crop].
        masks: uint8 [n, crop / 4, crop / 4], share of the cell that is defective, of 255.
        kinds: int64 [n], place of the type in `DEFECTS` plus one, 0 for a flawless image.
        families: float32 [n, families], share of each in the surface.
        instances: int64 [n], equal for the renderings of one surface.
        tints: float32 [n, 3], by which gray values become those of a colour camera.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    kinds: NDArray[np.int64]
    families: NDArray[np.float32]
    instances: NDArray[np.int64]
    tints: NDArray[np.float32]


def draw_batch(config: PretrainConfig, index: int) -> Drawn:
    """Return batch ``index``, always the same for a config and an index."""
    rng = np.random.default_rng((config.seed, 7, index))
    pixels, masks, kinds, families, instances, tints = [], [], [], [], [], []
    for place in range(config.surfaces):
        first = _surface(rng)
        kind = _kind(config, rng)
        # Half of the siblings differ by their defect alone, half by their surface.
        same = rng.random() < 0.5
        second = first if same else _sibling(first, rng)
        other = _kind(config, rng, but=kind) if same else kind
        for twin, (surface, defect) in enumerate(((first, kind), (second, other))):
            several = int(rng.integers(1, 4))
            for _ in range(2):
                image, mask = _rendered(config, surface, defect, several, rng)
                pixels.append(image)
                masks.append(mask)
                kinds.append(DEFECTS.index(defect) + 1 if defect else 0)
                families.append(_shares(surface))
                instances.append(2 * place + twin)
                tints.append(_tint(rng))
    return Drawn(
        np.stack(pixels),
        np.stack(masks),
        np.array(kinds),
        np.stack(families),
        np.array(instances),
        np.stack(tints),
    )


def _surface(rng: Generator) -> Surface:
    kind = str(rng.choice(("single", "mixed", "metal"), p=(0.35, 0.35, 0.3)))
    return draw_surface(str(rng.choice(FAMILIES)) if kind == "single" else kind, rng)


def _sibling(surface: Surface, rng: Generator) -> Surface:
    """Return a surface that shares all layers but one, or at least the family."""
    layers = list(surface.layers)
    place = int(rng.integers(len(layers)))
    fresh = draw_surface(FAMILIES[int(rng.integers(len(FAMILIES)))], rng)
    if len(layers) == 1:
        fresh = draw_surface(surface.family, rng)
    layers[place] = fresh.layers[0]
    return replace(surface, layers=tuple(layers))


def _kind(config: PretrainConfig, rng: Generator, but: str | None = None) -> str:
    """Draw a type of defect, "" for none, other than ``but``."""
    if but != "" and rng.random() < config.flawless:
        return ""
    return str(rng.choice([kind for kind in DEFECTS if kind != but]))


def _rendered(
    config: PretrainConfig, surface: Surface, kind: str, several: int, rng: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return one image and its mask in cells."""
    side = config.crop
    field = np.clip(varied(surface, rng, 0.15).render((side, side), rng), 0.01, 0.99)
    if rng.random() < FRAMED:
        field = framed(field, rng)
    mask = np.zeros((side, side), bool)
    for _ in range(several if kind else 0):
        try:
            field, more = damage(field, kind, rng, config.strength)
        except ValueError:  # nothing shows on this surface: then there is none
            continue
        mask |= more
    image = Camera.draw(rng).taken(field, rng)
    cells = mask.reshape(side // CELL, CELL, side // CELL, CELL).mean((1, 3))
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, cells = np.rot90(image, turns), np.rot90(cells, turns)
    if flip:
        image, cells = image[:, ::-1], cells[:, ::-1]
    return image, np.rint(255 * cells).astype(np.uint8)


def framed(field: Field, rng: Generator) -> Field:
    """Return the surface with borders of the part, their rims, and what lies behind them."""
    found = field
    side = field.shape[0]
    behind = float(rng.choice((0.02, 0.1, 0.5, 0.9))) + 0.03 * rng.standard_normal()
    down = np.arange(side, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, side, dtype=np.float32)
    for turn in rng.choice(4, int(rng.integers(1, 4)), replace=False):
        found = np.rot90(found, turn)
        depth = side * (rng.uniform(0.01, 0.15) + rng.normal(0, 0.02) * across)
        inside = down - depth - np.float32(side * rng.normal(0, 0.03)) * across**2
        rim = np.exp(-np.abs(inside) / np.float32(rng.uniform(1, 0.08 * side)))
        found = found + np.float32(max(0.0, rng.normal(0, 0.15)) * rng.choice((-1, 1))) * rim
        seen = np.clip(inside / np.float32(rng.uniform(1, 6)), 0, 1)
        found = np.rot90(found * seen + np.float32(behind) * (1 - seen), -turn)
    clipped: Field = np.clip(np.ascontiguousarray(found, dtype=np.float32), 0, 1)
    return clipped


def _shares(surface: Surface) -> NDArray[np.float32]:
    found = np.zeros(len(FAMILIES), np.float32)
    for layer, weight in zip(surface.layers, surface.weights, strict=True):
        found[_family_of()[type(layer)]] += weight
    found /= found.sum()
    return found


@cache
def _family_of() -> dict[type[Any], int]:
    rng = np.random.default_rng(0)
    return {type(draw(rng)): place for place, draw in enumerate(LAYERS.values())}


def _tint(rng: Generator) -> NDArray[np.float32]:
    if rng.random() < 0.5:
        return np.ones(3, np.float32)
    return rng.uniform(0.4, 1, 3).astype(np.float32)
