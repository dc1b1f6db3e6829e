"""Divisions of an image into segments, the players of its explanation: cells, or superpixels.

Superpixels are SLIC (Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel
methods", TPAMI 2012) without its connectivity pass: pixels cut off from the largest piece of their
segment go to the nearest pixel that is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import PlayersError

Labels = NDArray[np.intp]
"""Segment of each pixel ``[H, W]``, 0 to P - 1, each number in use."""
_ROUNDS = 5


def grid_cells(height: int, width: int, count: int, shift: tuple[float, float] = (0, 0)) -> Labels:
    """Divide an image into about ``count`` cells that are nearly square.

    Args:
        height: Pixels.
        width: Pixels.
        count: Cells wanted; those that a shift cuts off at a border join their neighbours.
        shift: Parts of a cell, in [0, 1), that the grid is moved down and to the right.

    Raises:
        PlayersError: On a count below 1 or above the number of pixels.
    """
    _require_room(height, width, count)
    rows, columns = _rows_columns(height, width, count)
    down = _places(height, rows, shift[0])
    right = _places(width, columns, shift[1])
    return np.asarray(down[:, None] * (right[-1] + 1) + right, dtype=np.intp)


def grid_shift(number: int) -> tuple[float, float]:
    """Return where a numbered layout begins, in parts of a cell down and to the right.

    The first six are every half by every third. Each further six stand between those before them,
    moved by the next of Halton's points (radical inverses of base 2 and 3), so that no two layouts
    are alike.

    >>> [grid_shift(number) for number in (0, 1, 3, 6)]
    [(0.0, 0.0), (0.5, 0.3333333333333333), (0.5, 0.0), (0.25, 0.1111111111111111)]
    """
    later, place = divmod(number, 6)
    return (
        place % 2 / 2 + _radical_inverse(later, 2) / 2,
        place % 3 / 3 + _radical_inverse(later, 3) / 3,
    )


def superpixels(image: NDArray[np.floating[Any]], count: int, compactness: float = 0.1) -> Labels:
    """Divide an image ``[C, H, W]`` into about ``count`` segments of one level each.

    Args:
        image: Finite levels, of any range.
        count: Segments wanted.
        compactness: Range of the image's levels that weighs like one cell's side; more makes
            segments squarer.

    Raises:
        PlayersError: On a count below 1 or above the number of pixels.
    """
    height, width = image.shape[1:]
    cells = grid_cells(height, width, count)
    rows, columns = _rows_columns(height, width, count)
    # Levels that are all the same, or apart by less than float32 divides by, tell nothing.
    spread = float(np.ptp(image))
    reach = spread * compactness if spread > float(np.finfo(np.float32).tiny) else 1.0
    side = np.sqrt(height * width / (rows * columns))
    down, right = np.mgrid[:height, :width]
    points = np.stack([*(image / reach), down / side, right / side], axis=-1)
    near = _beside(cells, rows, columns)
    labels = cells
    for _ in range(_ROUNDS):
        middles = _means(points, labels, rows * columns)
        apart = np.full((height, width), np.inf)
        chosen = labels.copy()
        for places in near:
            far = np.square(points - middles[places]).sum(axis=-1)
            better = far < apart
            apart[better], chosen[better] = far[better], places[better]
        labels = chosen
    return _in_one_piece(labels)


def _radical_inverse(number: int, base: int) -> float:
    """Return a number's digits behind the point, the last digit first."""
    found, share = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        share /= base
        found += digit * share
    return found


def _require_room(height: int, width: int, count: int) -> None:
    if not 1 <= count <= height * width:
        raise PlayersError(
            f"{count:,} segments of {height} x {width} pixels: give 1 to {height * width:,}"
        )


def _rows_columns(height: int, width: int, count: int) -> tuple[int, int]:
    rows = int(np.clip(round(np.sqrt(count * height / width)), 1, height))
    return rows, int(np.clip(round(count / rows), 1, width))


def _places(length: int, cells: int, shift: float) -> Labels:
    """Return the cell of each place; a cell of less than half a side joins its neighbour."""
    side = length / cells
    found: Labels = np.floor((np.arange(length) + 0.5) / side - shift).astype(np.intp)
    found -= found[0]
    if cells > 1:
        sizes = np.bincount(found)
        if sizes[0] < side / 2:
            found = np.maximum(found - 1, 0)
        if sizes[-1] < side / 2:
            found = np.minimum(found, found[-1] - 1)
    return found


def _beside(cells: Labels, rows: int, columns: int) -> list[Labels]:
    """Return the up to nine cells around each pixel's own."""
    row, column = np.divmod(cells, columns)
    return [
        np.clip(row + i, 0, rows - 1) * columns + np.clip(column + j, 0, columns - 1)
        for i in (0, -1, 1)
        for j in (0, -1, 1)
    ]


def _means(points: NDArray[np.float64], labels: Labels, count: int) -> NDArray[np.float64]:
    flat = labels.ravel()
    size = np.maximum(np.bincount(flat, minlength=count), 1)
    each = [np.bincount(flat, one.ravel(), count) / size for one in np.moveaxis(points, -1, 0)]
    return np.stack(each, axis=-1)


def _in_one_piece(labels: Labels) -> Labels:
    """Give pixels outside of the largest piece of their segment to the nearest one inside."""
    from scipy.ndimage import distance_transform_edt, find_objects, label

    orphan = np.zeros(labels.shape, dtype=bool)
    for number, window in enumerate(find_objects(labels + 1)):
        if window is None:
            continue
        pieces, many = label(labels[window] == number)
        if many > 1:
            largest = 1 + np.bincount(pieces.ravel())[1:].argmax()
            orphan[window] |= (pieces > 0) & (pieces != largest)
    if orphan.any():
        _, nearest = distance_transform_edt(orphan, return_indices=True)
        labels = labels[tuple(nearest)]
    found: Labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return found
