"""A defect of one image on another, blended in the gradient domain (Perez et al., SIGGRAPH 2003).

The result has the gradients of the defective image around the defect and those of the normal one
elsewhere, as nearly as an image can. Unlike in the paper, its values are not fixed along the
defect's outline but at the edges of a rectangle around it: an outline that crosses grain then
leaves no streaks, and on a rectangle a sine transform solves the equation directly (Simchony et
al., PAMI 1990). Where a defect reaches the edge of the image, that edge is free.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, ndimage

from tasks.defects.augment.boxes import shifted
from tasks.defects.augment.surfaces import Surface, pixels_of, surface_of
from tasks.defects.samples import Mask, Sample, SampleError, rgb

Ends = tuple[bool, bool]
"""Whether the first and the last edge along an axis are free; the values behind others are 0."""
ROOM = 3
"""Pixels around a defect that come with it, so that the seam lies on normal surface."""
_RING = 6
_GAINS = (0.25, 4.0)
_DARKEST = 0.03
_TRIES = 16


def poisson_transplant(
    defective: Sample, normal: Sample, rng: Generator, where: Mask | None = None
) -> Sample | None:
    """Put a defect on a random place of a normal image.

    Args:
        defective: With a mask.
        normal: Of any size; not one labelled ng.
        rng: Source of the place.
        where: bool [h, w] of the normal image: where the defect may lie, such as on the part.

    Returns:
        The normal image with the defect; mask, boxes and type moved along. A defect that touches an
        edge of its image touches the same edge here. None where it fits nowhere: it is larger than
        the image, or than ``where``. Its part is neither of the two, so split by parts before.

    Raises:
        SampleError: No mask, a normal image labelled ng, or ``where`` of another size.
    """
    if defective.mask is None or not defective.mask.any():
        raise SampleError(f"{defective.name}: a transplant needs the defect's mask; draw one")
    if normal.label == "ng":
        raise SampleError(f"{normal.name} is labelled ng; transplant onto normal images")
    shape = normal.pixels.shape[:2]
    if where is not None and where.shape != shape:
        raise SampleError(
            f"{normal.name}: where is {where.shape}, the image {shape}; give its size"
        )
    region = grown(defective.mask)
    found = ndimage.find_objects(region.astype(np.uint8))[0]
    place = _place(defective.mask, region, found, shape, where, rng)
    if place is None:
        return None
    colour = defective.pixels.ndim == 3 or normal.pixels.ndim == 3
    mine, target = (
        surface_of(rgb(sample.pixels) if colour else sample.pixels)
        for sample in (defective, normal)
    )
    source, mask = np.zeros_like(target), np.zeros(shape, dtype=np.bool_)
    # A ring around the region comes along, by which the brightness of both places is compared.
    window = tuple(
        slice(max(0, one.start - _RING, -move), min(one.stop + _RING, here, there - move))
        for one, move, here, there in zip(found, place, region.shape, shape, strict=True)
    )
    moved = tuple(
        slice(one.start + move, one.stop + move) for one, move in zip(window, place, strict=True)
    )
    source[moved], mask[moved] = mine[window], defective.mask[window]
    known = np.zeros(shape, dtype=np.bool_)
    known[moved] = True
    blended = blend(source, mask, target, known)
    return Sample(
        name=f"{normal.name}+{defective.name}",
        pixels=pixels_of(blended),
        label="ng",
        kind=defective.kind,
        mask=mask,
        boxes=tuple(shifted(box, *place) for box in defective.boxes),
    )


def blend(source: Surface, mask: Mask, target: Surface, known: Mask | None = None) -> Surface:
    """Return ``target`` with the defect of ``source``, which lies on the same place there.

    Args:
        source: float32 [h, w, c] in [0, 1].
        mask: bool [h, w] of the defect.
        target: float32 of the same shape.
        known: bool [h, w], where ``source`` is known; at least 4 pixels around the mask.

    Returns:
        float32 [h, w, c] in [0, 1]. The defect's gradients are scaled by how bright its new
        surroundings are beside its own, since what a surface reflects is a share of the light.
    """
    if not mask.any():
        return target.copy()
    region = grown(mask)
    ring = ndimage.binary_dilation(region, iterations=_RING) & ~region
    if known is not None:
        ring &= known
    around = ring if ring.any() else region
    gain = float(target[around].mean()) / max(float(source[around].mean()), _DARKEST)
    more = source * np.float32(np.clip(gain, *_GAINS)) - target
    rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
    margin = max(8, rows.stop - rows.start, columns.stop - columns.start)
    height, width = mask.shape
    window = (
        slice(max(0, rows.start - margin), min(height, rows.stop + margin)),
        slice(max(0, columns.start - margin), min(width, columns.stop + margin)),
    )
    ends: tuple[Ends, Ends] = (
        (bool(mask[0].any()), bool(mask[-1].any())),
        (bool(mask[:, 0].any()), bool(mask[:, -1].any())),
    )
    correction = solve(_divergence(more[window], region[window]), ends)
    made = target.copy()
    made[window] += correction
    return np.clip(made, 0, 1, out=made)


def grown(mask: Mask) -> Mask:
    """Return the mask and what comes with it."""
    return np.asarray(ndimage.binary_dilation(mask, iterations=ROOM), dtype=np.bool_)


def solve(divergence: Surface, ends: tuple[Ends, Ends]) -> Surface:
    """Return u [h, w, c] whose discrete Laplacian is the divergence.

    Args:
        divergence: float32 [h, w, c].
        ends: Of rows and of columns. Where all four edges are free, u has mean 0.
    """
    height, width = divergence.shape[:2]
    for axis, (first, last) in enumerate(ends):
        if first != last:  # mirrored at the free edge, the other one is there twice
            mirrored = np.flip(divergence, axis)
            both = (mirrored, divergence) if first else (divergence, mirrored)
            divergence = np.concatenate(both, axis)
    free = [all(each) for each in ends]
    rows, columns = (_eigenvalues(divergence.shape[axis], free[axis]) for axis in (0, 1))
    scale = rows[:, None] + columns[None, :]
    if all(free):
        scale[0, 0] = np.inf
    found = divergence
    for axis in (0, 1):
        found = fft.dct(found, 2, axis=axis) if free[axis] else fft.dst(found, 1, axis=axis)
    found = found / scale[..., None].astype(np.float32)
    for axis in (0, 1):
        found = fft.idct(found, 2, axis=axis) if free[axis] else fft.idst(found, 1, axis=axis)
    top = height if ends[0] == (True, False) else 0
    left = width if ends[1] == (True, False) else 0
    return np.asarray(found[top : top + height, left : left + width], dtype=np.float32)


def _eigenvalues(size: int, free: bool) -> NDArray[np.float64]:  # noqa: FBT001 - private
    angle = np.arange(size) / size if free else np.arange(1, size + 1) / (size + 1)
    return np.asarray(2 * np.cos(np.pi * angle) - 2)


def _divergence(values: Surface, region: Mask) -> Surface:
    """Return the divergence of the values' gradient, counted between pixels of the region alone."""
    found = np.zeros_like(values)
    for axis in (0, 1):
        before = tuple(slice(None, -1) if one == axis else slice(None) for one in (0, 1))
        after = tuple(slice(1, None) if one == axis else slice(None) for one in (0, 1))
        slope = (values[after] - values[before]) * (region[after] & region[before])[..., None]
        found[before] += slope
        found[after] -= slope
    return found


def _place(
    mask: Mask,
    region: Mask,
    found: tuple[slice, slice],
    shape: tuple[int, ...],
    where: Mask | None,
    rng: Generator,
) -> tuple[int, int] | None:
    """Return by how much the region moves, down and right; None where it fits nowhere."""
    choices = []
    for axis, (one, size) in enumerate(zip(found, shape, strict=True)):
        edge = mask.any(axis=1 - axis)
        low, high = -one.start, size - one.stop
        # What touches an edge stays there: a break in the middle of a part is none.
        if edge[0]:
            high = min(high, -one.start)
        if edge[-1]:
            low = max(low, size - one.stop)
        if low > high:
            return None
        choices.append((low, high))
    for _ in range(_TRIES):
        down, right = (int(rng.integers(low, high + 1)) for low, high in choices)
        if where is None:
            return down, right
        rows, columns = found
        there = where[rows.start + down : rows.stop + down, columns.start + right :]
        if there[:, : columns.stop - columns.start][region[found]].all():
            return down, right
    return None
