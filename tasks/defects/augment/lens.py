"""Another lens: radial distortion, slight tilt, dark corners, defocus; masks and boxes move along.

Distortion is the division model (Fitzgibbon, CVPR 2001), which has a closed form both ways, so
that boxes go exactly where the pixels go. The image is cropped as far as needed for every pixel to
come from inside of it: nothing is made up at the edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from tasks.defects.augment.boxes import Augmented, cut, label_left, touches
from tasks.defects.augment.surfaces import Surface, pixels_of, surface_of
from tasks.defects.samples import Box, Mask, Sample
from tasks.defects.textures.camera import Camera

Points = NDArray[np.float64]
"""float64 [2, ...], y and x."""
_MOST_DISTORTION, _MOST_TILT = 0.2, 0.2
_BISECTIONS = 24
_SHARP = 0.3
"""Pixels of a radius of defocus that nobody sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """How a lens bends and dims an image.

    Attributes:
        distortion: Of the division model, in units of half the diagonal; above 0 is a barrel.
        tilt: How much nearer the camera is to the bottom and to the right than to the middle.
        vignetting: Share of the light that is lost in the corners.
        defocus: Radius of the disk that a point becomes, in pixels.
    """

    distortion: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    vignetting: float = 0.0
    defocus: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if abs(self.distortion) > _MOST_DISTORTION or max(map(abs, self.tilt)) > _MOST_TILT:
            raise ValueError(
                f"distortion {self.distortion}, tilt {self.tilt}: give at most "
                f"{_MOST_DISTORTION} and {_MOST_TILT} either way, as lenses of inspection have"
            )
        if not (0 <= self.vignetting < 1 and 0 <= self.defocus <= 16):
            raise ValueError(
                f"vignetting {self.vignetting}, defocus {self.defocus}: give a share below 1, and "
                "a radius of at most 16 pixels"
            )

    @classmethod
    def draw(cls, rng: Generator, strength: float = 1.0) -> Lens:
        """Draw a lens; strength 0 changes nothing, 1 is a poor one (2 at most)."""
        return cls(
            distortion=strength * rng.uniform(-0.08, 0.08),
            tilt=(strength * rng.uniform(-0.06, 0.06), strength * rng.uniform(-0.06, 0.06)),
            vignetting=strength * rng.uniform(0, 0.3),
            defocus=strength * max(0.0, rng.uniform(-1.5, 1.5)),
        )

    def source(self, points: Points, shape: tuple[int, int]) -> Points:
        """Return where in the image before the pixels at points of the new one come from.

        Args:
            points: Pixels, the middle of the first one at .5.
            shape: Height and width.
        """
        middle, reach = _frame(points, shape)
        bent = (points - middle) / reach * self._zoom(shape)
        return self._before(bent) * reach + middle

    def target(self, points: Points, shape: tuple[int, int]) -> Points:
        """Return where points of the image before go: the inverse of `source`."""
        middle, reach = _frame(points, shape)
        flat = (points - middle) / reach
        flat = flat / (1 - self._tilted(flat))
        # No new pixel comes from beyond a radius of 1 / (2 sqrt(distortion)); such points stay out.
        left = np.maximum(0, 1 - 4 * self.distortion * (flat * flat).sum(axis=0))
        bent = 2 * flat / (1 + np.sqrt(left))
        return np.asarray(bent / self._zoom(shape) * reach + middle)

    def bent(self, surface: Surface, mask: Mask) -> tuple[Surface, Mask]:
        """Return surface, float32 [h, w, c], and mask, bool [h, w], by this lens's geometry."""
        if not self.distortion and not any(self.tilt):
            return surface, mask
        height, width = mask.shape
        points = np.indices(mask.shape, dtype=np.float64) + 0.5
        at = self.source(points, (height, width)) - 0.5
        at = np.clip(at, 0, np.array([height - 1, width - 1])[:, None, None])

        def moved(values: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(ndimage.map_coordinates(values, at, order=1), dtype=np.float32)

        channels = [moved(channel) for channel in np.moveaxis(surface, -1, 0)]
        return np.stack(channels, axis=-1), moved(mask.astype(np.float32)) >= 0.5

    def dimmed(self, surface: Surface, rng: Generator) -> Surface:
        """Return the surface out of focus and with dark corners."""
        found = surface
        if self.defocus > _SHARP:
            disk = _disk(self.defocus)[..., None]
            found = ndimage.convolve(found, disk, mode="nearest")
        if self.vignetting:
            light = Camera(vignetting=self.vignetting)
            found = np.stack([light.exposed(c, rng) for c in np.moveaxis(found, -1, 0)], axis=-1)
        return found

    def moved(self, box: Box, shape: tuple[int, int]) -> Box:
        """Return the box around all that the box holds, which may reach beyond the image."""
        steps = max(2, round(max(box.right - box.left, box.bottom - box.top)) + 1)
        y, x = np.linspace(box.top, box.bottom, steps), np.linspace(box.left, box.right, steps)
        top, bottom = np.full(steps, box.top), np.full(steps, box.bottom)
        left, right = np.full(steps, box.left), np.full(steps, box.right)
        rim = np.array([np.concatenate([y, y, top, bottom]), np.concatenate([left, right, x, x])])
        there = self.target(rim, shape)
        (top_most, left_most), (low_most, right_most) = there.min(axis=1), there.max(axis=1)
        return replace(
            box,
            left=float(left_most),
            top=float(top_most),
            right=float(right_most),
            bottom=float(low_most),
        )

    def _before(self, bent: Points) -> Points:
        flat = bent / (1 + self.distortion * (bent * bent).sum(axis=0))
        return np.asarray(flat / (1 + self._tilted(flat)))

    def _tilted(self, flat: Points) -> Points:
        return np.asarray(self.tilt[0] * flat[0] + self.tilt[1] * flat[1])

    def _zoom(self, shape: tuple[int, int]) -> float:
        """Return the factor, at most 1, by which the new image is cropped: none is made up."""
        half = np.array(shape) / np.hypot(*shape)
        along = np.linspace(-1, 1, 65)
        one = np.ones_like(along)
        rim = np.array([np.concatenate([along, along, one, -one]),
                        np.concatenate([one, -one, along, along])]) * half[:, None]  # fmt: skip

        def inside(zoom: float) -> bool:
            return bool((np.abs(self._before(rim * zoom)) <= half[:, None] + 1e-9).all())

        low, high = 0.0, 1.0
        if inside(high):
            return high
        for _ in range(_BISECTIONS):
            between = (low + high) / 2
            low, high = (between, high) if inside(between) else (low, between)
        return low


def lens(sample: Sample, rng: Generator, strength: float = 1.0) -> Augmented:
    """Return the sample by another lens.

    Args:
        sample: Any.
        rng: Source of the lens.
        strength: 0 changes nothing; at most 2.

    Returns:
        A box becomes the box around all that it held, cut at the edges of the image.
    """
    drawn = Lens.draw(rng, strength)
    shape = (sample.pixels.shape[0], sample.pixels.shape[1])
    surface = surface_of(sample.pixels)
    before = np.zeros(shape, dtype=np.bool_) if sample.mask is None else sample.mask
    surface, after = drawn.bent(surface, before)
    pixels = pixels_of(drawn.dimmed(surface, rng))
    frame = (0.0, 0.0, float(shape[1]), float(shape[0]))
    moved = sample.boxes
    if drawn.distortion or any(drawn.tilt):
        moved = tuple(
            box for one in sample.boxes if touches(box := drawn.moved(one, shape), *frame)
        )
    kept = tuple(one for box in moved if (one := cut(box, *frame)) is not None)
    mask = None if sample.mask is None else after
    label = label_left(sample.label, mask, len(moved))
    found = replace(
        sample,
        pixels=pixels,
        mask=mask,
        boxes=kept,
        label=label,
        kind="" if label == "ok" else sample.kind,
    )
    return Augmented(found, len(moved) - len(kept))


def _frame(points: Points, shape: tuple[int, int]) -> tuple[Points, float]:
    """Return the middle of an image, shaped as points are, and half of its diagonal."""
    middle = np.array(shape, dtype=np.float64) / 2
    return middle.reshape(2, *(1,) * (points.ndim - 1)), float(np.hypot(*shape)) / 2


def _disk(radius: float) -> NDArray[np.float32]:
    """Return a disk of sum 1, its rim a pixel wide."""
    side = np.arange(-int(radius + 1), int(radius + 1) + 1)
    far = np.hypot(side[:, None], side[None, :])
    disk = np.clip(radius + 0.5 - far, 0, 1)
    return np.asarray(disk / disk.sum(), dtype=np.float32)
