"""What can be measured on one image: brightness, sharpness, noise, colour, likeness.

Brightness is told on 0 to 255 whatever the depth. Sharpness is told by how much smaller the second
differences are between neighbours than at twice the distance, so neither contrast nor brightness
counts: the log is 0 for white noise and falls towards log(1/16) as the image gets smoother at that
scale (the idea of scale-space sharpness; cf. Crete et al., The blur effect, 2007). Noise is
Immerkaer's (Computer Vision and Image Understanding 64, 1996), colourfulness that of Hasler and
Süsstrunk (2003).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.decode import DecodedImage, Pixels
from tasks.cleaning.images.faults import spoilt

Floats = NDArray[np.float32]

SIDE = 64
"""Pixels on a side of the small image that likeness is judged on."""
SCALES = (1, 2, 4)
TILE, TILES = 512, 4
"""Above ``TILES`` x ``TILES`` tiles, sharpness and noise are measured on so many, spread evenly."""
DARK, LIGHT = 5, 250
"""Levels up to which, and from which, a pixel counts as clipped."""
FEATURES = (
    "mean",
    "p01",
    "p05",
    "p50",
    "p95",
    "p99",
    "contrast",
    "dark_share",
    "light_share",
    "entropy",
    "colourfulness",
    "noise",
    *(f"sharp{k}_{axis}" for k in SCALES for axis in ("rows", "columns")),
)
"""Names of the numbers that :func:`measure` gives."""


def gray_of(pixels: Pixels) -> Pixels:
    """Return luma (ITU-R BT.601, rounded) of RGB, gray as it is."""
    if pixels.ndim == 2:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))


def measure(image: DecodedImage) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Measure one image.

    Args:
        image: A decoded image.

    Returns:
        Numbers by the names of :data:`FEATURES`, and the small image, uint8 [64, 64].
    """
    gray = gray_of(image.pixels)
    found = _brightness(gray)
    found["colourfulness"] = _colourfulness(image.pixels)
    found |= _texture(gray)
    return _rounded(found), small(gray)


def measure_spoilt(image: DecodedImage) -> list[tuple[str, dict[str, float]]]:
    """Measure the image with each fault of ``faults.py``: name of the fault and numbers.

    Of an image above 1,024 pixels a side only the middle is spoilt.
    """
    gray = gray_of(image.pixels)
    top, left = (max(0, (length - 1_024) // 2) for length in gray.shape)
    colour = _colourfulness(image.pixels)
    return [
        (name, _rounded(_brightness(bad) | _texture(bad) | {"colourfulness": colour}))
        for name, bad in spoilt(gray[top : top + 1_024, left : left + 1_024])
    ]


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(found[name], 6) for name in FEATURES}


def pixel_digest(pixels: Pixels) -> str:
    """Return SHA-256 of shape, depth and pixels: equal for the same picture in any container.

    >>> pixel_digest(np.zeros((8, 8), np.uint8)) == pixel_digest(np.zeros((8, 8), np.uint16))
    False
    """
    head = f"{pixels.shape} {pixels.dtype.str}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def small(gray: Pixels) -> NDArray[np.uint8]:
    """Return the image in 64 x 64 pixels, each the mean of what it covers."""
    from PIL import Image

    eight = gray if gray.dtype == np.uint8 else (gray >> 8).astype(np.uint8)
    return np.asarray(Image.fromarray(eight).resize((SIDE, SIDE), Image.Resampling.BOX))


def _brightness(gray: Pixels) -> dict[str, float]:
    deep = gray.dtype == np.uint16
    levels = np.arange(1 << 16) / 257.0 if deep else np.arange(256.0)
    counts = np.bincount(gray.ravel(), minlength=len(levels))
    share = counts / gray.size
    mean = float(share @ levels)
    cumulated = np.cumsum(counts)
    found = {
        f"p{q:02d}": float(levels[np.searchsorted(cumulated, q / 100 * gray.size)])
        for q in (1, 5, 50, 95, 99)
    }
    coarse = share.reshape(256, -1).sum(1)
    held = coarse[coarse > 0]
    return found | {
        "mean": mean,
        "contrast": math.sqrt(max(float(share @ (levels - mean) ** 2), 0.0)),
        "dark_share": float(coarse[: DARK + 1].sum()),
        "light_share": float(coarse[LIGHT:].sum()),
        "entropy": float(-(held * np.log2(held)).sum()) + 0.0,
    }


def _colourfulness(pixels: Pixels) -> float:
    if pixels.ndim == 2:
        return 0.0
    step = max(1, math.isqrt(pixels[..., 0].size // 1_000_000))
    red, green, blue = np.moveaxis(pixels[::step, ::step].astype(np.float32), 2, 0)
    a, b = red - green, (red + green) / 2 - blue
    return float(np.hypot(a.std(), b.std()) + 0.3 * np.hypot(a.mean(), b.mean()))


def _texture(gray: Pixels) -> dict[str, float]:
    energy = np.zeros((2, 2 * max(SCALES) + 1))
    noise, seen = 0.0, 0
    for tile in _tiles(gray):
        weight = tile.size
        for k in {*SCALES, *(2 * k for k in SCALES)}:
            for axis, turned in enumerate((tile.T, tile)):
                energy[axis, k] += weight * _second_difference(turned, k)
        noise += weight * _immerkaer(tile)
        seen += weight
    energy = energy / seen + 0.01  # a flat image has no scale
    found = {
        f"sharp{k}_{name}": float(math.log(energy[axis, k] / energy[axis, 2 * k]))
        for k in SCALES
        for axis, name in enumerate(("rows", "columns"))
    }
    return found | {"noise": noise / seen}


def _tiles(gray: Pixels) -> list[Floats]:
    """Return the image, or tiles of it where it is large, as float32 of 0 to 255."""

    def scaled(part: Pixels) -> Floats:
        whole = part.astype(np.float32)
        return whole / np.float32(257) if part.dtype == np.uint16 else whole

    def starts(length: int) -> list[int]:
        if length <= TILE * TILES:
            return [0]
        return [int(start) for start in np.linspace(0, length - TILE, TILES)]

    rows, columns = starts(gray.shape[0]), starts(gray.shape[1])
    tall = TILE if len(rows) > 1 else gray.shape[0]
    wide = TILE if len(columns) > 1 else gray.shape[1]
    return [scaled(gray[r : r + tall, c : c + wide]) for r in rows for c in columns]


def _second_difference(image: Floats, k: int) -> float:
    """Return the mean square of second differences at distance k along the columns' direction."""
    if image.shape[1] <= 2 * k:
        return 0.0
    bent = image[:, : -2 * k] + image[:, 2 * k :] - 2 * image[:, k:-k]
    return float(np.square(bent).mean(dtype=np.float64))


def _immerkaer(image: Floats) -> float:
    """Return the standard deviation of the noise, in levels of 255."""
    along = image[:, :-2] + image[:, 2:] - 2 * image[:, 1:-1]
    both = along[:-2] + along[2:] - 2 * along[1:-1]
    return float(math.sqrt(math.pi / 2) / 6 * np.abs(both).mean(dtype=np.float64))


def facts_of(image: DecodedImage) -> dict[str, Any]:
    """Return the JSON facts of a decoded image, size and digest of pixels with them."""
    height, width = image.pixels.shape[:2]
    kind = "rgb" if image.pixels.ndim == 3 else "gray"
    return image.facts | {
        "width": width,
        "height": height,
        "kind": kind,
        "digest": pixel_digest(image.pixels),
    }
