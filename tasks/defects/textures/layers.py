"""What surfaces are made of: one layer each, with parameters of its own.

A layer is drawn once, its parameters in wide ranges, and rendered as often as there are parts:
the statistics stay, the pixels differ. Lengths are in pixels, angles in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.random import Generator

from tasks.defects.textures.fields import (
    Field,
    Shape,
    coordinates,
    fractal_noise,
    spectral_noise,
    standard,
    value_noise,
    worley,
)


class Layer(Protocol):
    """Renders one part's worth of itself."""

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return float32 [h, w] of mean 0 and spread 1."""


def between(rng: Generator, low: float, high: float) -> float:
    """Draw evenly in the logarithm, so that small values are as frequent as large ones."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def direction(rng: Generator) -> float:
    """Draw an angle; half of all processes are aligned with the image."""
    if rng.random() < 0.5:
        return float(rng.integers(2) * math.pi / 2)
    return float(rng.uniform(0, math.pi))


@dataclass(frozen=True, slots=True)
class Perlin:
    """Fractal noise, plain or bent: ridges and flat patches as on rolled or coated surfaces."""

    period: float
    octaves: int
    gain: float
    bend: Literal["plain", "ridges", "billows", "patches"]
    sharpness: float

    @classmethod
    def draw(cls, rng: Generator) -> Perlin:
        """Draw the parameters."""
        bend = ("plain", "ridges", "billows", "patches")[int(rng.integers(4))]
        return cls(
            between(rng, 3, 60),
            int(rng.integers(1, 6)),
            rng.uniform(0.3, 0.9),
            bend,  # type: ignore[arg-type]  # one of the four
            between(rng, 1, 8),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        noise = fractal_noise(shape, self.period, self.octaves, self.gain, rng)
        if self.bend == "ridges":
            noise = np.exp(-np.float32(self.sharpness) * np.abs(noise))
        elif self.bend == "billows":
            noise = np.abs(noise)
        elif self.bend == "patches":
            noise = np.tanh(np.float32(self.sharpness) * (noise - np.float32(0.3)))
        return standard(noise)


@dataclass(frozen=True, slots=True)
class Stripes:
    """Rolled lines or ridges: a wave of any profile, wandering and fading."""

    period: float
    angle: float
    profile: float
    wander: float
    fading: float

    @classmethod
    def draw(cls, rng: Generator) -> Stripes:
        """Draw the parameters."""
        return cls(
            between(rng, 3, 40),
            direction(rng),
            between(rng, 0.3, 6),
            between(rng, 0.02, 1.5),
            rng.uniform(0, 0.8),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        _, across = coordinates(shape, self.angle)
        bent = np.float32(self.wander) * value_noise(shape, 4 * self.period, rng)
        phase = np.float32(2 * math.pi / self.period) * across + bent
        wave = np.sin(phase + np.float32(rng.uniform(0, 2 * math.pi)))
        wave = np.tanh(np.float32(self.profile) * wave)
        fade = 1 + np.float32(self.fading) * value_noise(shape, 6 * self.period, rng)
        return standard(wave * fade)


@dataclass(frozen=True, slots=True)
class Weave:
    """Two systems of threads that pass over and under each other."""

    warp: float
    weft: float
    angle: float
    step: int
    gap: float
    unevenness: float

    @classmethod
    def draw(cls, rng: Generator) -> Weave:
        """Draw the parameters; ``step`` tells plain weave (1) from twill."""
        period = between(rng, 5, 28)
        return cls(
            period,
            period * between(rng, 0.6, 1.6),
            direction(rng) + rng.normal(0, 0.03),
            int(rng.integers(1, 4)),
            rng.uniform(0.2, 1.5),
            rng.uniform(0.02, 0.4),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        along, across = coordinates(shape, self.angle)
        moved = np.float32(0.12) * value_noise(shape, 3 * self.warp, rng)
        x = along / np.float32(self.warp) + moved + np.float32(rng.uniform(64, 128))
        y = across / np.float32(self.weft) - moved + np.float32(rng.uniform(64, 128))
        threads = rng.normal(0, self.unevenness, (2, 512)).astype(np.float32)
        column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        over = (column + self.step * row) % (self.step + 1) == 0
        power = np.float32(self.gap)
        warp = np.abs(np.sin(np.float32(math.pi) * x)) ** power + threads[0][column % 512]
        weft = np.abs(np.sin(np.float32(math.pi) * y)) ** power + threads[1][row % 512]
        return standard(np.where(over, warp, weft - np.float32(0.15)))


@dataclass(frozen=True, slots=True)
class Brushed:
    """Ground or brushed metal: streaks along one direction."""

    angle: float
    stretch: float
    slope: float
    longest: float
    finest: float

    @classmethod
    def draw(cls, rng: Generator) -> Brushed:
        """Draw the parameters."""
        return cls(
            direction(rng),
            between(rng, 4, 80),
            rng.uniform(0.2, 2),
            between(rng, 3, 60),
            between(rng, 0.4, 3),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        return spectral_noise(
            shape,
            rng,
            slope=self.slope,
            longest=self.longest,
            finest=self.finest,
            stretch=self.stretch,
            angle=self.angle,
        )


@dataclass(frozen=True, slots=True)
class Cast:
    """A rough surface under slanting light: the slope of a height field, and grain on it."""

    slope: float
    longest: float
    finest: float
    light: float
    grain: float
    skew: float

    @classmethod
    def draw(cls, rng: Generator) -> Cast:
        """Draw the parameters."""
        return cls(
            rng.uniform(1, 2.6),
            between(rng, 6, 80),
            between(rng, 0.5, 5),
            rng.uniform(0, 2 * math.pi),
            rng.uniform(0, 0.6),
            rng.uniform(-0.6, 0.6),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        height = spectral_noise(
            shape, rng, slope=self.slope, longest=self.longest, finest=self.finest
        )
        lit = np.float32(math.sin(self.light)) * (height - np.roll(height, 1, 0))
        lit += np.float32(math.cos(self.light)) * (height - np.roll(height, 1, 1))
        lit = standard(lit)
        lit = np.exp(np.float32(self.skew) * lit) if abs(self.skew) > 0.1 else lit
        grain = rng.standard_normal(shape, dtype=np.float32)
        return standard(standard(lit) + np.float32(self.grain) * grain)


@dataclass(frozen=True, slots=True)
class Cells:
    """Grains, pebbles, or a network of seams between them."""

    period: float
    kind: Literal["grains", "seams", "pebbles"]
    width: float
    wander: float

    @classmethod
    def draw(cls, rng: Generator) -> Cells:
        """Draw the parameters."""
        kind = ("grains", "seams", "pebbles")[int(rng.integers(3))]
        return cls(
            between(rng, 5, 36),
            kind,  # type: ignore[arg-type]  # one of the three
            between(rng, 0.04, 0.3),
            rng.uniform(0, 0.6),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        first, second = worley(shape, self.period, rng)
        if self.kind == "grains":
            found = first
        elif self.kind == "seams":
            found = -np.exp((first - second) / np.float32(self.width))
        else:
            found = np.tanh((second - first) / np.float32(self.width))
        noise = value_noise(shape, self.period / 3, rng)
        return standard(standard(found) + np.float32(self.wander) * noise)


@dataclass(frozen=True, slots=True)
class Specks:
    """Scattered spots or short streaks: pores, graphite, rust, fibres."""

    density: float
    size: float
    stretch: float
    angle: float
    clusters: float
    bright: float

    @classmethod
    def draw(cls, rng: Generator) -> Specks:
        """Draw the parameters; ``density`` is spots per pixel."""
        size = between(rng, 0.7, 4)
        return cls(
            between(rng, 0.004, 0.25) / size**2,
            size,
            between(rng, 1, 14) if rng.random() < 0.5 else 1.0,
            direction(rng),
            rng.uniform(0, 1.5) if rng.random() < 0.5 else 0.0,
            rng.choice((0.0, 0.5, 1.0), p=(0.5, 0.2, 0.3)),
        )

    def render(self, shape: Shape, rng: Generator) -> Field:
        """Return one rendering."""
        chance = np.full(shape, self.density, np.float32)
        if self.clusters:
            chance *= np.exp(np.float32(self.clusters) * value_noise(shape, 24, rng))
        spots = rng.random(shape, dtype=np.float32) < chance
        weight = np.where(rng.random(shape, dtype=np.float32) < self.bright, 1, -1)
        driven = spots * weight * rng.random(shape, dtype=np.float32)
        return spectral_noise(
            shape,
            rng,
            slope=0.0,
            finest=2.2 * self.size,
            stretch=self.stretch,
            angle=self.angle,
            driven=driven.astype(np.float32),
        )
