"""One production line: parts of one surface, some of them defective, each photographed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from tasks.defects.samples import Box, Mask, Sample
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.defects import DEFECTS, damage
from tasks.defects.textures.fields import Shape
from tasks.defects.textures.surface import TEXTURES, draw_surface, varied

_TYPES = {"scratch": 10, "pit": 10, "stain": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class LineConfig:
    """A line.

    Attributes:
        texture: One of `TEXTURES`.
        shape: Height and width of an image in pixels.
        ok: Flawless parts.
        ng: Defective parts per kind of defect, of `DEFECTS`.
        exposures: Images of each part, differently lit; all carry the name of the part.
        variation: How much the surface differs from part to part, see `varied`.
        exposure_spread: Spread of the exposures' logarithm.
        strength: Weakest and strongest contrast of a defect, in spreads of the surface.
        noise: Spread of the sensor's noise.
        seed: Decides everything else.
    """

    texture: str = "cast"
    shape: Shape = (128, 128)
    ok: int = 40
    ng: Mapping[str, int] = field(default_factory=lambda: dict(_TYPES))
    exposures: int = 1
    variation: float = 0.1
    exposure_spread: float = 0.1
    strength: tuple[float, float] = (1.5, 5.0)
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.texture not in TEXTURES:
            raise ValueError(f"texture is {self.texture!r}; take one of {', '.join(TEXTURES)}")
        if unknown := sorted(set(self.ng) - set(DEFECTS)):
            raise ValueError(f"ng names {', '.join(unknown)}; take of {', '.join(DEFECTS)}")
        if min(self.shape) < 16:
            raise ValueError(f"shape is {self.shape}; give sides of at least 16 pixels")
        if self.exposures < 1 or min(self.ok, *self.ng.values(), 0) < 0:
            raise ValueError("give at least 1 exposure, and numbers of parts of at least 0")


def make_line(config: LineConfig) -> list[Sample]:
    """Return the images of a line, uint8 [h, w], with labels, types, masks, boxes and parts.

    Flawless parts come first. A part of a number is the same whatever the other numbers are.
    """
    rng = np.random.default_rng((config.seed, 0))
    surface = draw_surface(config.texture, rng)
    camera = replace(Camera.draw(rng), noise=config.noise, gain=1.0, gamma=1.0, uneven=0.0)
    wanted = [("", place) for place in range(config.ok)]
    wanted += [(kind, place) for kind in config.ng for place in range(config.ng[kind])]
    found = []
    for kind, place in wanted:
        which = DEFECTS.index(kind) + 1 if kind else 0
        own = np.random.default_rng((config.seed, 1, which, place))
        part = np.clip(varied(surface, own, config.variation).render(config.shape, own), 0, 1)
        mask = None
        if kind:
            part, mask = damage(part, kind, own, config.strength)
        for shot in range(config.exposures):
            gain = float(np.exp(config.exposure_spread * own.standard_normal()))
            pixels = replace(camera, gain=gain).taken(part, own)
            name = f"{kind or 'normal'}/{place:04d}"
            found.append(
                Sample(
                    name=f"{name}_{shot}.png" if config.exposures > 1 else f"{name}.png",
                    pixels=pixels,
                    label="ng" if kind else "ok",
                    kind=kind,
                    mask=mask,
                    boxes=boxes_of(mask, kind) if mask is not None else (),
                    part=name,
                )
            )
    return found


def boxes_of(mask: Mask, kind: str) -> tuple[Box, ...]:
    """Return a box around each piece of a mask; pieces that almost touch are one."""
    labelled, _ = ndimage.label(ndimage.binary_dilation(mask, iterations=3))
    found = []
    for place, window in enumerate(ndimage.find_objects(labelled), start=1):
        rows, columns = np.nonzero(mask[window] & (labelled[window] == place))
        rows, columns = rows + window[0].start, columns + window[1].start
        corner = float(columns.min()), float(rows.min())
        found.append(Box(*corner, float(columns.max() + 1), float(rows.max() + 1), kind))
    return tuple(found)
