"""Where the camera stands: shift, turn and zoom of an image against the reference's mean edges.

Phase correlation of edge maps gives the shift; that of their spectra's magnitudes in log-polar
coordinates, which do not depend on it, turn and zoom (Reddy and Chatterji, IEEE Transactions on
Image Processing 1996). It needs something that stands still in the picture: an outline, a rim, a
fixture. On a surface without one every image lies anywhere, which `CameraReference.learn` finds out
and says.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.features import gray_of
from tasks.defects.samples import Pixels

Map = NDArray[np.float32]
Spectrum = NDArray[np.complex128]
SIDE = 128
"""Images are brought to so many pixels a side."""
ANGLES, RADII = 180, 64
INNER = 4.0
"""Frequencies below tell of light, not of edges."""
STEADY = 0.8
"""Share of reference images that must lie together for the camera to be judged."""
NEAR = 0.03
"""How near, as a share of the side."""


class Placement(NamedTuple):
    """How an image lies against the reference.

    Attributes:
        right: Shift to the right, as a share of the width.
        down: Shift down, as a share of the height.
        turn: Degrees, against the clock.
        zoom: Logarithm of how much larger things are.
    """

    right: float
    down: float
    turn: float
    zoom: float


@dataclass(frozen=True, eq=False)
class CameraReference:
    """Mean edges of a line's images.

    Attributes:
        edges: float32 [SIDE, SIDE].
    """

    edges: Map

    @classmethod
    def learn(cls, images: Sequence[Pixels]) -> tuple[CameraReference, list[Placement], str]:
        """Learn from images of good days.

        Args:
            images: At least 20; the first half gives the edges, the second is held against them.

        Returns:
            The reference, how the second half lies against it, and why the camera cannot be judged,
            "" where it can.
        """
        half = len(images) // 2
        if half < 10:
            raise ValueError(f"{len(images)} images; a camera's reference needs 20")
        total = np.zeros((SIDE, SIDE), np.float32)
        for one in images[:half]:
            total += _edges(one)
        made = cls.restored(cls(total / half).state())  # as it will be after a restart
        lying = [made.place(one) for one in images[half:]]
        middle = np.median(np.array(lying), axis=0)
        near = [max(abs(p.right - middle[0]), abs(p.down - middle[1])) <= NEAR for p in lying]
        share = sum(near) / len(near)
        why = f"nothing stands still in the picture: {share:.0%} of images lie together"
        return made, lying, "" if share >= STEADY else why

    def place(self, pixels: Pixels) -> Placement:
        """Return how an image, uint8 [h, w] or [h, w, 3], lies against the reference."""
        (here, here_polar), (there, there_polar) = self._spectra, _spectra(_edges(pixels))
        rows, columns = _shift(here, there)
        angle, radius = _shift(here_polar, there_polar)
        growth = math.log(SIDE / 2 / INNER) / (RADII - 1)
        # A larger picture has its frequencies nearer to the middle.
        return Placement(columns / SIDE, rows / SIDE, -angle * 180.0 / ANGLES, -radius * growth)

    @cached_property
    def _spectra(self) -> tuple[Spectrum, Spectrum]:
        return _spectra(self.edges)

    def state(self) -> str:
        """Return the edges as base64 of bytes."""
        scaled = np.clip(np.rint(self.edges * (255.0 / max(float(self.edges.max()), 1e-9))), 0, 255)
        return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()

    @classmethod
    def restored(cls, state: str) -> CameraReference:
        """Return the reference of a state."""
        data = base64.b64decode(state, validate=True)
        if len(data) != SIDE * SIDE:
            raise ValueError("edges of a camera's reference have a wrong size; learn them anew")
        return cls(np.frombuffer(data, np.uint8).reshape(SIDE, SIDE).astype(np.float32) / 255.0)


def small_gray(pixels: Pixels) -> Pixels:
    """Return uint8 [SIDE, SIDE], all that is looked at of an image; a small one stays as it is."""
    from PIL import Image

    gray = Image.fromarray(gray_of(pixels))
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))


def _edges(pixels: Pixels) -> Map:
    """Return float32 [SIDE, SIDE]: how steep the brightness is, whatever the exposure."""
    from scipy import ndimage

    gray = ndimage.gaussian_filter(small_gray(pixels).astype(np.float32), 1.0)
    steep = np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))
    return np.asarray(steep / (steep.mean() + 1e-3), dtype=np.float32)


def _spectra(edges: Map) -> tuple[Spectrum, Spectrum]:
    """Return the spectrum of edges, and that of its magnitudes in log-polar coordinates."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    plain = np.fft.fft2((edges - np.median(edges)) * window)
    return plain, np.fft.fft2(_log_polar(np.fft.fftshift(np.abs(plain))))


def _log_polar(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy import ndimage

    angles = np.pi * np.arange(ANGLES)[:, None] / ANGLES
    radii = INNER * (SIDE / 2 / INNER) ** (np.arange(RADII)[None] / (RADII - 1))
    places = np.stack([SIDE / 2 + radii * np.sin(angles), SIDE / 2 + radii * np.cos(angles)])
    sampled = ndimage.map_coordinates(np.log1p(magnitude), places, order=1, mode="nearest")
    sampled = sampled - sampled.mean(axis=0, keepdims=True)  # rings tell of blur, not of turns
    return np.asarray(sampled * np.hanning(RADII)[None])


def _shift(here: Spectrum, there: Spectrum) -> tuple[float, float]:
    """Return by how many rows and columns the second lies from the first, to parts of a pixel."""
    cross = np.conj(here) * there
    # Half whitened: wholly so, noise counts as much as edges do.
    peak = np.real(np.fft.ifft2(cross / np.sqrt(np.abs(cross) + 1e-12)))
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(peak)), peak.shape))
    found = []
    for at, axis, other in ((row, 0, column), (column, 1, row)):
        length = peak.shape[axis]
        line = peak[:, other] if axis == 0 else peak[other]
        low, top, high = line[(at - 1) % length], line[at], line[(at + 1) % length]
        bend = low - 2 * top + high
        inside = 0.5 * (low - high) / bend if abs(bend) > 1e-12 else 0.0
        found.append((at + inside + length / 2) % length - length / 2)
    return float(found[0]), float(found[1])
