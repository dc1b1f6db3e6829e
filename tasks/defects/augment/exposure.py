"""Another exposure: light that is stronger, weaker or slanting, the sensor's noise and response.

The chain of a camera in its order: light falls on the sensor (gain, slope), the well is full at
some point (clipping), photons arrive at random and reading adds noise (EMVA 1288), the response is
a power. Levels are taken as linear in the light, as industrial cameras give them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from tasks.defects.augment.surfaces import Surface, pixels_of, surface_of
from tasks.defects.samples import Sample
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.layers import between


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How much of the light is taken, and how.

    Attributes:
        light: Gain and slant of the light, and gamma; nothing else of it is used.
        electrons: A full well, of which shot noise follows; infinite for none.
        read: Spread of the noise of reading, in shares of full brightness.
    """

    light: Camera = field(default_factory=Camera)
    electrons: float = math.inf
    read: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (self.electrons > 0 and self.read >= 0):
            raise ValueError(
                f"electrons {self.electrons}, read {self.read}: give a full well above 0 "
                "(infinite for no shot noise) and a spread of 0 or more"
            )

    @classmethod
    def draw(cls, rng: Generator, strength: float = 1.0) -> Exposure:
        """Draw an exposure; strength 0 changes nothing, 1 what a line sees in a year."""
        light = Camera(
            gain=math.exp(strength * rng.uniform(-0.35, 0.35)),
            gamma=math.exp(strength * rng.uniform(-0.35, 0.35)),
            slant=strength * rng.uniform(0, 0.3),
            slant_angle=rng.uniform(0, 2 * math.pi),
        )
        well = between(rng, 2_000, 40_000)
        return cls(
            light=light,
            electrons=well / strength**2 if strength else math.inf,
            read=strength * rng.uniform(0, 0.01),
        )

    def taken(self, surface: Surface, rng: Generator) -> Surface:
        """Return the surface, float32 [h, w, c] in [0, 1], as it is taken."""
        light = replace(self.light, gamma=1.0)
        lit = np.stack(
            [light.exposed(channel, rng) for channel in np.moveaxis(surface, -1, 0)], axis=-1
        )
        if self.read or math.isfinite(self.electrons):
            spread = np.sqrt(lit / np.float32(self.electrons) + np.float32(self.read) ** 2)
            lit = np.clip(lit + spread * rng.standard_normal(lit.shape, dtype=np.float32), 0, 1)
        if self.light.gamma != 1.0:
            lit = lit ** np.float32(self.light.gamma)
        return np.asarray(lit, dtype=np.float32)


def exposure(sample: Sample, rng: Generator, strength: float = 1.0) -> Sample:
    """Return the sample at another exposure; mask, boxes and label stay.

    Args:
        sample: Any.
        rng: Source of the exposure and of its noise.
        strength: 0 changes nothing.
    """
    taken = Exposure.draw(rng, strength).taken(surface_of(sample.pixels), rng)
    return replace(sample, pixels=pixels_of(taken))
