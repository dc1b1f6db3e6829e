"""Pieces of a user's images to train on: defects, normal surface, and both put together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.defect_net import STRIDE
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.seams import with_seam
from tasks.defects.detect.synthetic import Surface, with_defect
from tasks.defects.samples import Mask, Sample, rgb
from tasks.defects.textures.layers import between

_ZOOM = (0.45, 1.25)
_TRANSPLANTED = 1 / 3
"""Share of the real defects that are put on another normal image."""
_BEYOND = 1 / 3
"""How far beyond the image a piece is drawn, as a share of it; then it is moved inside."""
_SEAMS = 0.4
"""Share of the synthetic defects that are areas of another finish."""
_LARGE = 12.0
"""Pixels of the piece from inside of an area to its nearest border, above which it is large."""
_ASPECTS = ((1.0, 1.0), (0.78, 1.25), (1.25, 0.78))


class Pieces(NamedTuple):
    """A batch to train on.

    Attributes:
        pixels: float [n, 3, h, w] in [0, 1]; square or half as long again, alike in a batch.
        target: float [n, 1, h / 4, w / 4], 1 where a cell touches a defect.
        drawn: float [n], 1 where ``target`` is known, 0 where only the image's label is.
        defective: float [n], 1 where a piece shows a defect, or most likely does.
        large: bool [n], whether the defect is an area rather than a spot or a line.
    """

    pixels: Tensor
    target: Tensor
    drawn: Tensor
    defective: Tensor
    large: Tensor


class PieceMaker:
    """Draws batches of pieces from samples.

    Args:
        normals: Normal images, at least one.
        defects: Defective ones; with mask, with boxes (taken as coarse masks), or with neither.
        config: Size of pieces, and shares of real and synthetic defects.
        rng: Source of all that is random.
        hints: By name of a defective image with neither mask nor box, bool [h, w]: where its
            defect most likely is.
    """

    def __init__(
        self,
        normals: Sequence[Sample],
        defects: Sequence[Sample],
        config: DetectConfig,
        rng: Generator,
        hints: Mapping[str, Mask] | None = None,
    ) -> None:
        colour = any(sample.pixels.ndim == 3 for sample in (*normals, *defects))
        self._normals = [_levels(sample, colour=colour) for sample in normals]
        self._defects: list[tuple[Surface, Mask, bool]] = []
        for sample in defects:
            where = region(sample)
            drawn = where is not None
            if where is None:
                where = (hints or {}).get(sample.name, np.ones(sample.pixels.shape[:2], np.bool_))
            self._defects.append((_levels(sample, colour=colour), where, drawn))
        self._config, self._rng = config, rng
        self._size: tuple[int, ...] = (config.piece, config.piece)
        self._real = config.real if defects else 0.0
        self._synthetic = config.synthetic + (config.real - self._real) / 2

    def batch(self) -> Pieces:
        """Return the next batch."""
        aspect = _ASPECTS[int(self._rng.integers(len(_ASPECTS)))]
        self._size = tuple(max(16, int(self._config.piece * one) // 16 * 16) for one in aspect)
        each = [self._piece() for _ in range(self._config.batch)]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _, _ in each]))
        masks = torch.from_numpy(np.stack([mask for _, mask, _ in each]).astype(np.float32))
        return Pieces(
            pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1),
            functional.max_pool2d(masks[:, None], STRIDE),
            torch.tensor([drawn for _, _, drawn in each], dtype=torch.float32),
            masks.flatten(1).amax(dim=1),
            torch.tensor([is_large(mask) for _, mask, _ in each]),
        )

    def _piece(self) -> tuple[Surface, Mask, bool]:
        """Return a piece, the mask of its defect, and whether that mask was drawn."""
        rng, drawn = self._rng, True
        which = rng.random()
        if which < self._real:
            image, where, drawn = self._defects[int(rng.integers(len(self._defects)))]
            pixels, mask = self._cut(image, where)
            if drawn and rng.random() < _TRANSPLANTED:
                pixels = transplanted(pixels, mask, self._normal(), rng)
        else:
            pixels = self._normal()
            mask = np.zeros(pixels.shape[:2], dtype=np.bool_)
            if which < self._real + self._synthetic:
                make = with_seam if rng.random() < _SEAMS else with_defect
                pixels, mask = make(pixels, self._normal(), rng)
        for axis in (0, 1):  # never a right angle, since grain has a direction
            if rng.random() < 0.5:
                pixels, mask = np.flip(pixels, axis), np.flip(mask, axis)
        return other_light(pixels, rng), mask, drawn

    def _normal(self) -> Surface:
        image = self._normals[int(self._rng.integers(len(self._normals)))]
        return self._cut(image, np.zeros(image.shape[:2], dtype=np.bool_))[0]

    def _cut(self, pixels: Surface, mask: Mask) -> tuple[Surface, Mask]:
        """Return a random piece at a random zoom, one that holds some of the mask if there is."""
        rng, size = self._rng, self._size
        zoom = between(rng, *_ZOOM)
        tall, wide = (round(one / zoom) for one in size)
        pixels, mask = _padded(pixels, mask, (tall, wide), rng)
        height, width = mask.shape
        rows, columns = np.nonzero(mask)
        if len(rows):
            place = int(rng.integers(len(rows)))
            top = int(np.clip(rows[place] - rng.integers(tall), 0, height - tall))
            left = int(np.clip(columns[place] - rng.integers(wide), 0, width - wide))
        else:
            top, left = _start(height, tall, rng), _start(width, wide, rng)
        window = np.s_[top : top + tall, left : left + wide]
        small = _zoomed(mask[window][..., None], size)[..., 0] > 0.3
        return _zoomed(pixels[window], size), small


def _start(whole: int, piece: int, rng: Generator) -> int:
    """Return where a piece of normal surface begins, often at the border of the image.

    Drawn evenly, hardly any piece would end at a border, but those around a defect near one do: the
    border itself would be taken for a defect.
    """
    beyond = round(_BEYOND * piece)
    return int(np.clip(rng.integers(-beyond, whole - piece + beyond + 1), 0, whole - piece))


def region(sample: Sample) -> Mask | None:
    """Return where the defect is, boxes as a coarse mask; None where nobody said."""
    if sample.mask is not None and sample.mask.any():
        return sample.mask
    if not sample.boxes:
        return None
    found = np.zeros(sample.pixels.shape[:2], dtype=np.bool_)
    for box in sample.boxes:
        rows = slice(max(0, math.floor(box.top)), max(0, math.ceil(box.bottom)))
        found[rows, max(0, math.floor(box.left)) : max(0, math.ceil(box.right))] = True
    return found if found.any() else None


def is_large(mask: Mask) -> bool:
    """Return whether some pixel lies deep inside of the mask."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1, "edge"))
    return bool(mask.all() or depth.max() > _LARGE)


def transplanted(pixels: Surface, mask: Mask, normal: Surface, rng: Generator) -> Surface:
    """Return the normal piece with the defect on it, at the brightness of its new place."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    grown = binary_dilation(mask, iterations=3)
    ring = binary_dilation(grown, iterations=6) & ~grown
    around = ring if ring.any() else ~np.zeros_like(mask)
    own = max(float(pixels[around].mean()), 0.03)
    gain = normal[around].mean() / own
    alpha = gaussian_filter(grown.astype(np.float32), 1.0 + float(rng.random()))[..., None]
    contrast = math.exp(rng.uniform(-0.5, 0.3))
    lit = (own + (pixels - own) * np.float32(contrast)) * np.float32(min(gain, 4.0))
    return np.asarray(np.clip(normal + alpha * (lit - normal), 0, 1), dtype=np.float32)


def other_light(pixels: Surface, rng: Generator) -> Surface:
    """Return the piece under other gamma, exposure and slope of light, with noise or blur."""
    from scipy.ndimage import gaussian_filter

    height, width, _ = pixels.shape
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    right = np.linspace(-1, 1, width, dtype=np.float32)[:, None]
    slope = 1 + rng.uniform(-0.15, 0.15) * down + rng.uniform(-0.15, 0.15) * right
    lit = np.maximum(pixels, 1e-3) ** math.exp(rng.uniform(-0.35, 0.35))
    lit = lit * slope * math.exp(rng.uniform(-0.3, 0.3))
    lit = lit + rng.uniform(0, 0.02) * rng.standard_normal(pixels.shape, dtype=np.float32)
    if rng.random() < 0.15:
        lit = gaussian_filter(lit, (*(2 * (rng.uniform(0.4, 1.0),)), 0))
    return np.clip(lit, 0, 1).astype(np.float32)


def _levels(sample: Sample, *, colour: bool) -> Surface:
    """Return float32 [h, w, 3], or [h, w, 1] where all images are gray, which is faster."""
    pixels = rgb(sample.pixels) if colour else sample.pixels[..., None]
    return pixels.astype(np.float32) / np.float32(255)


def _padded(
    pixels: Surface, mask: Mask, size: tuple[int, int], rng: Generator
) -> tuple[Surface, Mask]:
    """Mirror an image that is smaller than a piece."""
    height, width = mask.shape
    more_rows, more_columns = max(0, size[0] - height), max(0, size[1] - width)
    if not more_rows and not more_columns:
        return pixels, mask
    top, left = int(rng.integers(more_rows + 1)), int(rng.integers(more_columns + 1))
    pad = ((top, more_rows - top), (left, more_columns - left))
    return np.pad(pixels, (*pad, (0, 0)), "symmetric"), np.pad(mask, pad, "symmetric")


def _zoomed(values: NDArray[np.generic], size: tuple[int, ...]) -> Surface:
    whole = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).permute(2, 0, 1)
    if whole.shape[1:] != size:
        whole = functional.interpolate(
            whole[None], size=size, mode="bilinear", antialias=True, align_corners=False
        )[0]
    return np.asarray(whole.permute(1, 2, 0).numpy(), dtype=np.float32)
