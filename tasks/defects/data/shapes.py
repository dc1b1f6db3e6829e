"""Outlines and runs of annotation files, and which pixels they mark.

A pixel belongs to an outline when its middle lies inside (by the even-odd rule; a middle on an edge
belongs to the right and the lower side), so outlines that share an edge share no pixel and leave
none out, and the area of one with corners on the grid is exact. One that holds no middle, such as
a hair's, marks the pixels of its corners. Runs count down the columns, as in COCO's mask API.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Mask

MAX_WORK = 1 << 28
"""Pixels and crossings of all shapes of one image; more are no drawing of people."""
MAX_PIXELS = 1 << 31
"""Of an image that runs are said to be of."""
MAX_TEXT = 4 << 20
"""Letters of compressed runs."""
MAX_LETTERS = 7
"""Letters of one compressed run: 35 bits."""


class ShapeError(ValueError):
    """A shape that marks nothing that can be told; says why."""


class Shape(ABC):
    """Something drawn on an image."""

    @property
    @abstractmethod
    def content(self) -> bytes:
        """What is equal for equal shapes."""

    @abstractmethod
    def extent(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom; edges count from 0."""

    @abstractmethod
    def work(self) -> int:
        """Return about how many numbers `mark` handles."""

    @abstractmethod
    def mark(self, mask: Mask) -> None:
        """Mark its pixels, where they lie within the mask."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline(Shape):
    """A polygon.

    Attributes:
        points: float64 [n, 2], x and y of at least three corners in pixels, finite.
    """

    points: NDArray[np.float64]

    @property
    def content(self) -> bytes:
        """What is equal for equal shapes."""
        return b"outline" + self.points.astype("<f8").tobytes()

    def extent(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        left, top = self.points.min(axis=0)
        right, bottom = self.points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def work(self) -> int:
        """Return the area around it, and how many rows its edges cross."""
        left, top, right, bottom = self.extent()
        rows = np.abs(np.diff(self.points[:, 1], append=self.points[0, 1])).sum()
        return int(min((right - left) * (bottom - top) + rows, 2.0**62)) + len(self.points)

    def mark(self, mask: Mask) -> None:
        """Mark the pixels whose middle lies inside."""
        rows, crossings = self._crossings(len(mask))
        order = np.lexsort((crossings, rows))
        rows = rows[order][::2]  # a closed line crosses a row an even number of times
        edges = np.clip(np.ceil(crossings[order] - 0.5), 0, mask.shape[1]).astype(np.int64)
        if (edges[::2] >= edges[1::2]).all():
            x, y = np.floor(self.points).astype(np.int64).T
            inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < len(mask))
            mask[y[inside], x[inside]] = True
            return
        first, left = int(rows.min()), int(edges.min())
        steps = np.zeros((int(rows.max()) - first + 1, int(edges.max()) - left + 1), np.int32)
        np.add.at(steps, (rows - first, edges[::2] - left), 1)
        np.add.at(steps, (rows - first, edges[1::2] - left), -1)
        height, width = steps.shape
        mask[first : first + height, left : left + width] |= (
            np.cumsum(steps, axis=1)[:, : mask.shape[1] - left] > 0
        )

    def _crossings(self, height: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return where edges cross the middles of rows: their rows and x."""
        one, other = self.points, np.roll(self.points, -1, axis=0)
        # From the upper end on: an edge rounds alike in the two outlines that share it.
        down = (one[:, 1] <= other[:, 1])[:, None]
        (x, y), (x2, y2) = np.where(down, one, other).T, np.where(down, other, one).T
        first = np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(y2 - 0.5), 0, height).astype(np.int64)
        counts = last - first
        edge = np.repeat(np.arange(len(x)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = first[edge] + within
        share = (rows + 0.5 - y[edge]) / (y2 - y)[edge]
        return rows, x[edge] + share * (x2 - x)[edge]


@dataclass(frozen=True, slots=True, eq=False)
class Runs(Shape):
    """Pixels as lengths of runs, off and on in turn, down the columns.

    Attributes:
        height: Of the image.
        width: Of the image.
        counts: int64 [n], off first; they sum up to all pixels.
    """

    height: int
    width: int
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse runs that are not those of such an image."""
        pixels = self.height * self.width
        if min(self.height, self.width) < 1 or pixels > MAX_PIXELS:
            raise ShapeError(f"runs of {self.height} x {self.width} pixels are of no image")
        if (self.counts < 0).any() or (self.counts > pixels).any():
            raise ShapeError(f"a run below 0 or above {pixels:,}, all pixels")
        if (told := int(self.counts.sum())) != pixels:
            raise ShapeError(f"runs of {told:,} pixels, but {self.height} x {self.width} are there")

    @property
    def content(self) -> bytes:
        """What is equal for equal shapes."""
        return b"runs %d %d" % (self.height, self.width) + self.counts.astype("<i8").tobytes()

    def extent(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the marked pixels; nothing is a ShapeError."""
        ends = np.cumsum(self.counts)
        on = self.counts[1::2] > 0
        starts, ends = (ends - self.counts)[1::2][on], ends[1::2][on]
        if not len(starts):
            raise ShapeError("runs that mark no pixel")
        columns = starts // self.height, (ends - 1) // self.height
        # A run that goes on into the next column reaches from top to bottom.
        over = bool((columns[0] != columns[1]).any())
        top = 0 if over else int((starts % self.height).min())
        bottom = self.height if over else int(((ends - 1) % self.height).max()) + 1
        return float(columns[0].min()), float(top), float(columns[1].max() + 1), float(bottom)

    def work(self) -> int:
        """Return the pixels of the image and the runs."""
        return self.height * self.width + len(self.counts)

    def mark(self, mask: Mask) -> None:
        """Mark the pixels; the mask must have the size of the runs."""
        on = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        mask |= on.reshape(self.width, self.height).T


def unpacked(text: str) -> NDArray[np.int64]:
    """Return the runs of COCO's compressed form (`rleFrString` of its mask API).

    Raises:
        ShapeError: When it is none.
    """
    if len(text) > MAX_TEXT:
        raise ShapeError(f"{len(text):,} letters of runs; {MAX_TEXT:,} are read")
    try:
        values = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise ShapeError("compressed runs are letters from 0 to o") from error
    if not len(values) or values.min() < 0 or values.max() > 63 or values[-1] & 32:
        raise ShapeError("compressed runs are letters from 0 to o, and the last ends a run")
    ends = np.flatnonzero(values & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= MAX_LETTERS:
        raise ShapeError("a compressed run that is longer than every image")
    place = np.arange(len(values)) - np.repeat(starts, ends - starts + 1)
    found = np.add.reduceat((values & 31) << (5 * place), starts)
    found -= np.where(values[ends] & 16 > 0, 1 << (5 * (ends - starts + 1)), 0)
    # From the fourth on each is told as the difference to the one before the last.
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    return found


def drawn(shapes: Iterable[Shape], width: int, height: int) -> Mask:
    """Return the pixels that any of the shapes marks, bool [height, width]."""
    mask = np.zeros((height, width), np.bool_)
    for shape in shapes:
        shape.mark(mask)
    return mask


def shapes_digest(shapes: Sequence[Shape]) -> str:
    """Return the SHA-256 of shapes, in hexadecimal; their order counts."""
    found = hashlib.sha256()
    for shape in shapes:
        content = shape.content
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()
