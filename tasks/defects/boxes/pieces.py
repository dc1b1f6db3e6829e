"""Pieces of labelled images to train on: cut, zoomed, mirrored, relit, four put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tasks.defects.boxes.average_precision import edges_of
from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.iou import Edges
from tasks.defects.detect.pieces import other_light
from tasks.defects.detect.synthetic import Surface
from tasks.defects.samples import Pixels, Sample, rgb

_ZOOM = (0.8, 1.5)
_MOSAIC_ZOOM = (0.45, 0.9)
_STRETCH = 0.15
"""Largest logarithm of the ratio of a piece's two zooms."""
_LEFT_OVER = 0.3
"""Share of a box that must lie inside of a piece for it to count as shown."""


class BoxPieces(NamedTuple):
    """A batch to train on.

    Attributes:
        pixels: float [n, 3, h, w] in [0, 1].
        edges: Per piece, float [m, 4]: left, top, right, bottom in pixels.
        kinds: Per piece, int64 [m].
    """

    pixels: Tensor
    edges: list[Tensor]
    kinds: list[Tensor]


class _Image(NamedTuple):
    pixels: Pixels
    edges: Edges
    kinds: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    pixels: Surface
    edges: Edges
    kinds: NDArray[np.int64]


class BoxPieceMaker:
    """Draws batches.

    Args:
        samples: Brought to their working size; those without boxes show that there is nothing.
        kinds: Names of the types.
        config: Size of pieces and share of mosaics.
        rng: Source of all that is random.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        kinds: Sequence[str],
        config: BoxConfig,
        rng: Generator,
    ) -> None:
        colour = any(sample.pixels.ndim == 3 for sample in samples)
        self._images: list[_Image] = []
        for sample in samples:
            pixels = rgb(sample.pixels) if colour else sample.pixels[..., None]
            own = np.array([kinds.index(box.kind) for box in sample.boxes], np.int64)
            self._images.append(_Image(pixels, edges_of(sample.boxes), own))
        self._config, self._rng = config, rng
        self._order: list[int] = []

    def batch(self) -> BoxPieces:
        """Return the next batch."""
        each = [self._piece() for _ in range(self._config.batch)]
        pixels = torch.from_numpy(np.stack([piece.pixels for piece in each]))
        return BoxPieces(
            pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1),
            [torch.from_numpy(piece.edges.astype(np.float32)) for piece in each],
            [torch.from_numpy(piece.kinds) for piece in each],
        )

    def _piece(self) -> _Piece:
        side = self._config.piece
        if self._rng.random() >= self._config.mosaic:
            piece = self._cut((side, side), _ZOOM)
        else:
            piece = self._mosaic(side)
        return _Piece(other_light(piece.pixels, self._rng), piece.edges, piece.kinds)

    def _next(self) -> _Image:
        """Return each image once before any comes again."""
        if not self._order:
            self._order = self._rng.permutation(len(self._images)).tolist()
        return self._images[self._order.pop()]

    def _cut(self, size: tuple[int, int], zooms: tuple[float, float]) -> _Piece:
        """Return a random window of the next image at a random zoom, mirrored or not."""
        rng, image = self._rng, self._next()
        height, width = image.pixels.shape[:2]
        zoom = math.exp(rng.uniform(math.log(zooms[0]), math.log(zooms[1])))
        stretch = math.exp(rng.uniform(-_STRETCH, _STRETCH) / 2)
        # No window is larger than its image: what would lie outside has no labels.
        tall = min(height, max(8, round(size[0] / (zoom * stretch))))
        wide = min(width, max(8, round(size[1] / (zoom / stretch))))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        cut = image.pixels[top : top + tall, left : left + wide]
        pixels = cut.astype(np.float32) / np.float32(255)
        edges = image.edges - np.array([left, top, left, top])
        edges, kinds = _inside(edges, image.kinds, (tall, wide))
        if rng.random() < 0.5:
            pixels, edges = pixels[:, ::-1], _mirrored(edges, 0, wide)
        if rng.random() < 0.5:
            pixels, edges = pixels[::-1], _mirrored(edges, 1, tall)
        edges = edges * np.array([size[1] / wide, size[0] / tall] * 2)
        return _Piece(_zoomed(pixels, size), edges, kinds)

    def _mosaic(self, side: int) -> _Piece:
        """Return four images around a random middle (Bochkovskiy et al., YOLOv4, 2020)."""
        middle = [int(side * self._rng.uniform(0.35, 0.65)) for _ in range(2)]
        rows, columns = ((0, middle[0], side), (0, middle[1], side))
        pixels, edges, kinds = [], [], []
        for down in range(2):
            strip = []
            for right in range(2):
                top, left = rows[down], columns[right]
                size = rows[down + 1] - top, columns[right + 1] - left
                piece = self._cut(size, _MOSAIC_ZOOM)
                strip.append(piece.pixels)
                edges.append(piece.edges + np.array([left, top, left, top]))
                kinds.append(piece.kinds)
            pixels.append(np.concatenate(strip, axis=1))
        return _Piece(np.concatenate(pixels), np.concatenate(edges), np.concatenate(kinds))


def _inside(
    edges: Edges, kinds: NDArray[np.int64], size: tuple[int, int]
) -> tuple[Edges, NDArray[np.int64]]:
    """Return the boxes cut at the window, without those of which too little is left."""
    limits = np.array([size[1], size[0]] * 2)
    cut = np.clip(edges, 0, limits)
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (cut, edges)]
    shown = areas[0] > _LEFT_OVER * areas[1]
    return cut[shown], kinds[shown]


def _mirrored(edges: Edges, axis: int, length: int) -> Edges:
    found = edges.copy()
    found[:, axis], found[:, axis + 2] = length - edges[:, axis + 2], length - edges[:, axis]
    return found


def _zoomed(pixels: Surface, size: tuple[int, int]) -> Surface:
    whole = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    if whole.shape[1:] != size:
        whole = functional.interpolate(
            whole[None], size=size, mode="bilinear", antialias=True, align_corners=False
        )[0]
    return np.asarray(whole.permute(1, 2, 0).numpy(), dtype=np.float32)
