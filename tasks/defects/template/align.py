"""Lays an image on a golden sample: shift, rotation and a small change of size, under any light.

A coarse search correlates small pictures of the detail at every rotation and size of a grid, all
shifts at once by Fourier transforms; the best few are refined by least squares on the pixels, with
gain and offset among the unknowns as in the enhanced correlation coefficient (Evangelidis and
Psarakis, PAMI 30, 2008), and with small weights where the two differ: there may be a defect. Large
images are brought down for all of it: a pose is found to a small part of a pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tasks.defects.template.config import TemplateConfig

Field = NDArray[np.float32]
"""float32 [h, w]."""
_COARSE, _FINE = 128, 384
"""Longest sides of the pictures of the coarse search, and of the last refinement."""
_TRIED, _FIRST_STEPS, _STEPS = 4, 6, 25
_STILL = 0.01
"""Pixels of movement below which a pose is found."""
_ROBUST = 2.5
_BLOCK = 6
"""Spread, in blocks, of a wide mean that is taken on blocks."""


class Pose(NamedTuple):
    """Where a pixel of the golden sample lies in an image.

    With y and x counted from both middles: ``y' = across * x + along * y + down``,
    ``x' = along * x - across * y + right``.
    """

    along: float = 1.0
    across: float = 0.0
    down: float = 0.0
    right: float = 0.0


class Aligned(NamedTuple):
    """A pose, and how well it fits.

    Attributes:
        pose: Of the image on the golden sample.
        alike: Correlation of the details, -1 to 1.
    """

    pose: Pose
    alike: float


def aligned(image: Field, golden: Field, config: TemplateConfig) -> Aligned:
    """Return the pose in which an image is most like the golden sample.

    Args:
        image: float32 [h, w].
        golden: float32 [H, W], of about that size.
        config: How far the image may be off.
    """
    coarse, fine = (min(1.0, side / max(golden.shape)) for side in (_COARSE, _FINE))
    small = [detail(_smaller(one, coarse)) for one in (image, golden)]
    found = []
    for pose in _coarse(small[0], small[1], config)[:_TRIED]:
        near = _refined(small[0], small[1], pose, _FIRST_STEPS)
        found.append((_alike(small[0], small[1], near), near))
    _, best = max(found, key=lambda one: one[0])
    large = [detail(_smaller(one, fine)) for one in (image, golden)]
    pose = _refined(large[0], large[1], _grown(best, fine / coarse), _STEPS)
    return Aligned(_grown(pose, 1 / fine), _alike(large[0], large[1], pose))


def laid(image: Field, pose: Pose, shape: tuple[int, ...]) -> Field:
    """Return the image as the golden sample of that shape has it, NaN where it ends before."""
    matrix = np.array([[pose.along, pose.across], [-pose.across, pose.along]])
    return _moved(image, matrix, np.array([pose.down, pose.right]), shape)


def put_back(field: Field, pose: Pose, shape: tuple[int, ...]) -> Field:
    """Return a map of the golden sample as the image of that shape has it, NaN outside."""
    matrix = np.array([[pose.along, pose.across], [-pose.across, pose.along]])
    back = np.linalg.inv(matrix)
    return _moved(field, back, -back @ np.array([pose.down, pose.right]), shape)


def inside(pose: Pose, config: TemplateConfig, shape: tuple[int, ...]) -> bool:
    """Return whether a pose is as near as the configuration allows; a little more will do."""
    turn = math.degrees(math.atan2(pose.across, pose.along))
    zoom = math.hypot(pose.along, pose.across)
    moved = abs(pose.down) / shape[0], abs(pose.right) / shape[1]
    fits = abs(turn) <= config.turn + 0.5 and abs(zoom - 1) <= config.zoom + 0.01
    return fits and max(moved) <= config.shift + 0.02


def detail(field: Field) -> Field:
    """Return what changes over a few pixels, of even contrast: light and exposure drop out."""
    wide = max(4.0, max(field.shape) / 16)
    fine = ndimage.gaussian_filter(field, 0.7) - wide_mean(field, wide)
    power = wide_mean(fine * fine, wide)
    # Where there is nothing, noise must not be raised to the contrast of print.
    found: Field = fine / np.sqrt(power + 0.1 * float(power.mean()) + 1e-8)
    return found


def wide_mean(field: Field, wide: float) -> Field:
    """Return a Gaussian mean; wide ones are taken on a picture brought down, which is as smooth."""
    by = int(wide // _BLOCK)
    if by < 2:
        return np.asarray(ndimage.gaussian_filter(field, wide), np.float32)
    height, width = field.shape
    padded = np.pad(field, ((0, -height % by), (0, -width % by)), "symmetric")
    rows, columns = padded.shape[0] // by, padded.shape[1] // by
    blocks = padded.reshape(rows, by, columns, by).mean(axis=(1, 3))
    smooth = ndimage.gaussian_filter(blocks, wide / by)
    back = ndimage.zoom(smooth, by, order=1, mode="nearest", grid_mode=True)
    return np.asarray(back[:height, :width], np.float32)


def _grown(pose: Pose, factor: float) -> Pose:
    return pose._replace(down=pose.down * factor, right=pose.right * factor)


def _moved(
    field: Field, matrix: NDArray[np.float64], shift: NDArray[np.float64], shape: tuple[int, ...]
) -> Field:
    own = (np.array(field.shape) - 1) / 2
    other = (np.array(shape) - 1) / 2
    found: Field = ndimage.affine_transform(
        field,
        matrix,
        own + shift - matrix @ other,
        output_shape=tuple(shape),
        order=1,
        mode="constant",
        cval=np.nan,
    )
    return found


def _smaller(field: Field, factor: float) -> Field:
    if factor >= 1:
        return field
    smooth = ndimage.gaussian_filter(field, 0.5 / factor)
    size = np.array([max(8, round(side * factor)) for side in field.shape])
    # A pixel of the small picture is 1 / factor pixels of the large one, about the middle.
    matrix = np.eye(2) / factor
    return np.nan_to_num(_moved(smooth, matrix, np.zeros(2), tuple(size)), nan=float(field.mean()))


def _coarse(image: Field, golden: Field, config: TemplateConfig) -> list[Pose]:
    """Return starts, best first: for each rotation and size the best shift."""
    radius = max(golden.shape) / 2
    turns = np.radians(_grid(config.turn, math.degrees(1.5 / radius)))
    zooms = 1 + _grid(config.zoom, 1.5 / radius)
    size = [fft.next_fast_len(a + b) for a, b in zip(image.shape, golden.shape, strict=True)]
    wanted = np.conj(fft.rfft2(golden, size))
    most = [max(1, int(config.shift * side)) for side in golden.shape]
    rows, columns = (np.arange(-one, one + 1) for one in most)
    found: list[tuple[float, Pose]] = []
    for turn in turns:
        for zoom in zooms:
            pose = Pose(zoom * math.cos(turn), zoom * math.sin(turn))
            turned = np.nan_to_num(laid(image, pose, image.shape))
            alike = fft.irfft2(fft.rfft2(turned, size) * wanted, size)
            window = alike[np.ix_(rows % size[0], columns % size[1])]
            row, column = np.unravel_index(int(window.argmax()), window.shape)
            score = float(window[row, column] / (np.linalg.norm(turned) + 1e-6))
            # The shift is of the turned image, whose corner is its own.
            off = [(a - b) / 2 for a, b in zip(golden.shape, image.shape, strict=True)]
            shift = np.array([rows[row] + off[0], columns[column] + off[1]])
            along, across = pose.along, pose.across
            down, right = np.array([[along, across], [-across, along]]) @ shift
            found.append((score, Pose(along, across, float(down), float(right))))
    return [pose for _, pose in sorted(found, key=lambda one: -one[0])]


def _grid(limit: float, step: float) -> NDArray[np.float64]:
    count = math.ceil(limit / step) if limit else 0
    return np.linspace(-limit, limit, 2 * count + 1) if count else np.zeros(1)


def _refined(image: Field, golden: Field, pose: Pose, steps: int) -> Pose:
    """Return the pose by weighted Gauss-Newton steps from a near one."""
    y, x = (np.arange(side, dtype=np.float32) - (side - 1) / 2 for side in golden.shape)
    slopes = ndimage.sobel(image, 0) / 8, ndimage.sobel(image, 1) / 8
    reach = max(golden.shape) / 2
    for _ in range(steps):
        own = laid(image, pose, golden.shape)
        known = np.isfinite(own)
        if known.mean() < 0.25:
            break
        own = np.nan_to_num(own)
        gy, gx = (np.nan_to_num(laid(slope, pose, golden.shape)) for slope in slopes)
        columns = (gy * y[:, None] + gx * x, gy * x - gx * y[:, None], gy, gx, -golden)
        rows = np.stack([*(one[known] for one in columns), -np.ones(int(known.sum()))], axis=1)
        off = own[known]
        gain, offset = np.polyfit(golden[known], off, 1)
        apart = off - gain * golden[known] - offset
        scale = _ROBUST * float(np.median(np.abs(apart))) + 1e-6
        weight = 1 / (1 + (apart / scale) ** 2)
        weighted = rows * weight[:, None]
        step = np.linalg.lstsq(weighted.T @ rows, -weighted.T @ off, rcond=None)[0][:4]
        pose = Pose(*(float(a + b) for a, b in zip(pose, step, strict=True)))
        moved = abs(step[:2]).max() * reach + abs(step[2:]).max()
        if not math.isfinite(moved) or moved < _STILL:
            break
    return pose


def _alike(image: Field, golden: Field, pose: Pose) -> float:
    if not all(math.isfinite(one) for one in pose):
        return -1.0
    own = laid(image, pose, golden.shape)
    known = np.isfinite(own)
    if known.mean() < 0.25:
        return -1.0
    a, b = own[known], golden[known]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))
