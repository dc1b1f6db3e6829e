"""What lies between a part and its image: light, lens, exposure, sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from tasks.defects.samples import Pixels
from tasks.defects.textures.fields import Field, value_noise
from tasks.defects.textures.layers import between
from tasks.defects.textures.surface import to_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """How an image is taken.

    Attributes:
        gain: Exposure; 1 leaves the brightness alone.
        gamma: Exponent of the response.
        vignetting: Share of the light that is lost in the corners.
        slant: Difference of the light from one side to the other, as a share.
        slant_angle: Where it comes from, in radians.
        uneven: Spread of a light that changes smoothly over the image, as a share.
        blur: Spread of the lens in pixels.
        noise: Spread of the sensor's noise, in shares of full brightness.
    """

    gain: float = 1.0
    gamma: float = 1.0
    vignetting: float = 0.0
    slant: float = 0.0
    slant_angle: float = 0.0
    uneven: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    @classmethod
    def draw(cls, rng: Generator) -> Camera:
        """Draw a camera, from very good to poor."""
        return cls(
            gain=between(rng, 0.6, 1.5),
            gamma=between(rng, 0.7, 1.4),
            vignetting=max(0.0, rng.uniform(-0.3, 0.5)),
            slant=max(0.0, rng.uniform(-0.3, 0.6)),
            slant_angle=rng.uniform(0, 2 * math.pi),
            uneven=max(0.0, rng.uniform(-0.1, 0.2)),
            blur=max(0.0, rng.uniform(-0.8, 1.3)),
            noise=max(0.0, rng.uniform(-0.01, 0.035)),
        )

    def exposed(self, field: Field, rng: Generator) -> Field:
        """Return the brightness in [0, 1] that falls on the sensor."""
        found = field
        if self.blur > 0.2:
            found = ndimage.gaussian_filter(found, self.blur, truncate=2.5)
        if self.slant or self.vignetting:
            height, width = field.shape
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
            light = 1 - np.float32(self.vignetting / 2) * (y * y + x * x)
            light += np.float32(self.slant / 2 * math.sin(self.slant_angle)) * y
            light += np.float32(self.slant / 2 * math.cos(self.slant_angle)) * x
            found = found * light
        if self.uneven:
            reach = 0.6 * max(field.shape)
            found = found * np.exp(np.float32(self.uneven) * value_noise(field.shape, reach, rng))
        found = np.clip(found * np.float32(self.gain), 0, 1)
        if self.gamma != 1.0:
            found = found ** np.float32(self.gamma)
        return found

    def taken(self, field: Field, rng: Generator) -> Pixels:
        """Return an image, uint8 [h, w], of a part, float32 [h, w]."""
        found = self.exposed(field, rng)
        if self.noise:
            noise = rng.standard_normal(field.shape, dtype=np.float32)
            found = found + np.float32(self.noise) * noise
        return to_pixels(found)
