"""Random fields that surfaces and defects are made of."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft

Field = NDArray[np.float32]
"""float32 [h, w]."""
Shape = tuple[int, int]


def value_noise(shape: Shape, period: float, rng: Generator) -> Field:
    """Return smooth noise of spread about 1: random values on a lattice, cubic B-splines between.

    Two small matrix products, so that even many octaves cost little (Perlin 1985 asks for a
    gradient per pixel and octave).

    Args:
        shape: Height and width.
        period: Pixels between lattice points.
        rng: Source of the values.
    """
    rows = _spline(shape[0], period, rng.random())
    columns = _spline(shape[1], period, rng.random())
    lattice = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    # A B-spline of white values keeps about (0.48) of their spread in each direction.
    return (rows @ lattice @ columns.T) / np.float32(0.46)


def fractal_noise(shape: Shape, period: float, octaves: int, gain: float, rng: Generator) -> Field:
    """Return octaves of `value_noise`, each finer by half and weaker by ``gain``; spread 1."""
    found = np.zeros(shape, np.float32)
    strength, total = 1.0, 0.0
    for octave in range(octaves):
        width = max(period / 2**octave, 1.0)
        found += np.float32(strength) * value_noise(shape, width, rng)
        total += strength**2
        strength *= gain
    return found / np.float32(math.sqrt(total))


def spectral_noise(
    shape: Shape,
    rng: Generator,
    *,
    slope: float = 1.0,
    longest: float = 64.0,
    finest: float = 1.5,
    stretch: float = 1.0,
    angle: float = 0.0,
    driven: Field | None = None,
) -> Field:
    """Return noise with a given spectrum, mean 0 and spread 1.

    Args:
        shape: Height and width.
        rng: Source of the white noise.
        slope: Amplitude falls by the frequency to this power.
        longest: Pixels beyond which structures grow no stronger.
        finest: Pixels of the finest structures.
        stretch: How many times longer structures are along ``angle`` than across.
        angle: Direction in radians, 0 along rows.
        driven: float32 [h, w] to shape in place of white noise, e.g. sparse impulses.
    """
    white = rng.standard_normal(shape, dtype=np.float32) if driven is None else driven
    down = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    right = fft.rfftfreq(shape[1]).astype(np.float32)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    along = (right * cosine + down * sine) * np.float32(stretch)
    across = down * cosine - right * sine
    squared = along * along + across * across
    gain = np.exp(
        np.float32(-slope / 2) * np.log(squared + np.float32(longest**-2))
        - squared * np.float32(finest**2)
    )
    gain[0, 0] = 0
    return standard(fft.irfft2(fft.rfft2(white) * gain, s=shape))


def worley(shape: Shape, period: float, rng: Generator) -> tuple[Field, Field]:
    """Return distances to the nearest and second nearest of scattered points, in periods.

    One point in each cell of a lattice (Worley 1996); only the 9 cells around are looked at.
    """
    rows, columns = (math.ceil(length / period) + 3 for length in shape)
    points = rng.random((2, rows, columns), dtype=np.float32)
    y = (np.arange(shape[0], dtype=np.float32) / np.float32(period) + 1)[:, None]
    x = (np.arange(shape[1], dtype=np.float32) / np.float32(period) + 1)[None, :]
    row, column = y.astype(np.intp), x.astype(np.intp)
    first = np.full(shape, np.inf, np.float32)
    second = first.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            at = row + dy, column + dx
            apart_y = points[0][at] + (row + dy - y).astype(np.float32)
            apart_x = points[1][at] + (column + dx - x).astype(np.float32)
            far = apart_y * apart_y + apart_x * apart_x
            np.minimum(second, np.maximum(first, far), out=second)
            np.minimum(first, far, out=first)
    return np.sqrt(first), np.sqrt(second)


def coordinates(shape: Shape, angle: float) -> tuple[Field, Field]:
    """Return pixels along a direction and across it, each [h, w]."""
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    return x * cosine + y * sine, y * cosine - x * sine


def standard(field: Field) -> Field:
    """Return the field with mean 0 and spread 1; a flat one stays flat."""
    centred: Field = (field - field.mean()).astype(np.float32, copy=False)
    spread = float(np.sqrt(np.mean(centred * centred)))
    return centred / np.float32(spread) if spread > 1e-6 else centred


def _spline(length: int, period: float, phase: float) -> Field:
    """Return weights [length, cells] of cubic B-splines."""
    place = np.arange(length, dtype=np.float32) / np.float32(period) + np.float32(phase)
    cell = place.astype(np.intp)
    t = place - cell.astype(np.float32)
    found = np.zeros((length, int(cell[-1]) + 4), np.float32)
    line = np.arange(length)
    found[line, cell] = (1 - t) ** 3 / 6
    found[line, cell + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    found[line, cell + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    found[line, cell + 3] = t**3 / 6
    return found
