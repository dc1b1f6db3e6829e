"""Good images, and the same with faults, for clean-images: read from a folder, or made up."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tests.benchmarks._hostile_images import stored

Gray = NDArray[np.uint8]
Fault = Callable[[Gray], Gray]


class Line(NamedTuple):
    """Images of one line, and of another camera.

    Attributes:
        good: Bytes of the files.
        other: Bytes of files of another line.
    """

    good: list[bytes]
    other: list[bytes]


def read_line(folder: Path | None) -> Line | None:
    """Read NEU-DET and magnetic tiles from a folder, else from PENSTOCK_DATA; None without."""
    base = Path(os.environ["PENSTOCK_DATA"]) / "defects" if "PENSTOCK_DATA" in os.environ else None
    folder = folder or base
    if folder is None or not (folder / "neu_det" / "images").is_dir():
        return None
    good = sorted((folder / "neu_det" / "images").glob("*.jpg"))
    other = sorted((folder / "magnetic_tile").rglob("*.jpg"))
    return Line([p.read_bytes() for p in good], [p.read_bytes() for p in other])


def made_up_line(seed: int, number: int) -> Line:
    """Make up a rolled surface under one lamp, and another camera's cast one."""
    rng = np.random.default_rng(seed)
    return Line(
        [stored(_surface(rng, (3.0, 0.8)), "JPEG", quality=95) for _ in range(number)],
        [stored(_surface(rng, (1.5, 1.5)), "JPEG", quality=80) for _ in range(number // 4)],
    )


def _surface(rng: np.random.Generator, grain: tuple[float, float]) -> Gray:
    field = ndimage.gaussian_filter(rng.normal(size=(200, 200)), grain)
    field *= rng.uniform(10, 20) / field.std()
    lamp = np.linspace(-1, 1, 200)[None] * rng.uniform(5, 25)
    noise = rng.normal(0, rng.uniform(1.5, 3), field.shape)
    level = rng.uniform(90, 150)
    return np.clip(np.rint(level + lamp + field + noise), 0, 255).astype(np.uint8)


def pixels_of(data: bytes) -> Gray:
    """Return the gray pixels of a file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def like(original: bytes, pixels: Gray) -> bytes:
    """Store pixels as the original is stored, so that the file itself tells nothing."""
    first = Image.open(io.BytesIO(original))
    tables: Any = getattr(first, "quantization", None)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image = image if first.mode == "L" else image.convert("RGB")
    # Tables of colour are kept with the file although gray does not need them.
    return stored(image, "JPEG", qtables=tables, subsampling=0)


def _times(factor: float) -> Fault:
    return lambda g: np.clip(np.rint(g * factor), 0, 255).astype(np.uint8)


def _blurred(sigma: float) -> Fault:
    return lambda g: np.rint(ndimage.gaussian_filter(g.astype(np.float32), sigma)).astype(np.uint8)


def _moved(size: int) -> Fault:
    def moved(gray: Gray) -> Gray:
        return np.rint(ndimage.uniform_filter1d(gray.astype(np.float32), size)).astype(np.uint8)

    return moved


def _inner(gray: Gray) -> Gray:
    side = Image.fromarray(gray[2:-2, 2:-2]).resize(gray.shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(side)


QUALITY: dict[str, tuple[str, Fault]] = {
    "resaved": ("", lambda g: g),
    **{f"blur_{s}": ("blur", _blurred(s)) for s in (0.7, 1.0, 1.5, 2.0, 3.0)},
    **{f"motion_{s}": ("blur", _moved(s)) for s in (5, 9)},
    **{f"dark_{f}": ("dark", _times(f)) for f in (0.6, 0.4, 0.25, 0.1)},
    **{f"light_{f}": ("light", _times(f)) for f in (1.3, 1.6, 2.0, 3.0)},
}
"""Fault -> the name that is right for it, and what it does to the pixels."""

COPIES: dict[str, tuple[int, Fault]] = {
    "turned": (95, np.rot90),
    "upside_down": (95, lambda g: np.rot90(g, 2)),
    "mirrored": (95, lambda g: g[:, ::-1]),
    "turned_mirrored": (95, lambda g: np.rot90(g)[:, ::-1]),
    "jpeg_50": (50, lambda g: g),
    "jpeg_20": (20, lambda g: g),
    "lighter": (90, _times(1.15)),
    "blurred_1": (95, _blurred(1.0)),
    "inner_98": (95, _inner),
}
"""Kind of near duplicate -> quality of JPEG, and what it does to the pixels."""
