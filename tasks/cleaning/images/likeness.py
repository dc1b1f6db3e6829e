"""Exact and near duplicates of images, turned and mirrored ones among them.

Candidates come from a hash of 63 bits: the signs of the lowest cosine coefficients (pHash, Zauner
2010). Turning or mirroring an image swaps coefficients or turns their signs, so all eight hashes
follow from one. A candidate counts where the small images' *detail*, which is what is left without
means over 9 x 9 of 64 x 64 pixels, correlates in one of the eight positions. Whole images must not
be correlated: on a line two different parts under the same lamp correlate above .97.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.features import SIDE

Floats = NDArray[np.float32]
COEFFICIENTS = 8
AROUND = 9
LEAST_DETAIL = 0.5
"""Levels of detail (standard deviation) below which only exact duplicates are told."""
BLOCK = 512


@dataclass(frozen=True, slots=True)
class LikenessConfig:
    """When two images count as near duplicates.

    Attributes:
        correlation: Of the detail of both, in the best of the eight positions.
        bits: Bits of the hash that may differ, of 63.
    """

    correlation: float = 0.85
    bits: int = 16

    def __post_init__(self) -> None:
        """Refuse impossible thresholds."""
        if not 0.0 < self.correlation <= 1.0:
            raise ValueError(f"correlation is {self.correlation}; it must lie in 0 to 1")
        if not 0 <= self.bits <= 63:
            raise ValueError(f"bits is {self.bits}; it must lie in 0 to 63")


@dataclass(frozen=True, slots=True)
class Twin:
    """An image that repeats an earlier one.

    Attributes:
        of: Place of the first image of its group.
        correlation: 1.0 for equal pixels, else of the detail with the image that it was linked by.
        position: How it lies to that image, for people.
        exact: Whether the pixels are equal.
    """

    of: int
    correlation: float
    position: str
    exact: bool


POSITIONS = (
    "as it is", "mirrored", "turned by 90°", "turned by 90° and mirrored", "turned by 180°",
    "turned by 180° and mirrored", "turned by 270°", "turned by 270° and mirrored",
)  # fmt: skip


def positions(images: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """Return square images [n, side, side] in all eight positions, in the order of POSITIONS."""
    made = []
    for quarter in range(4):
        turned = np.rot90(images, quarter, (1, 2))
        made += [turned, turned[:, :, ::-1]]
    return made


def hashes(small: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hash of each small image, uint64 [n]; the lowest bit, of the mean, is 0.

    Args:
        small: uint8 [n, 64, 64].
    """
    return _packed(_signs(small))


def twins(
    digests: Sequence[str], small: NDArray[np.uint8], config: LikenessConfig | None = None
) -> dict[int, Twin]:
    """Find images that repeat an earlier one.

    Groups are connected: what is like a twin of the first one is a twin of the first. The same
    images in the same order give the same groups. Time grows with the square of the number: about
    a second of hashes for 10,000 images.

    Args:
        digests: SHA-256 of the pixels of each image.
        small: uint8 [n, 64, 64] each image at that size.
        config: Thresholds.

    Returns:
        For every image that repeats one: which, and how. The first of a group is not in it.
    """
    config = config or LikenessConfig()
    first: dict[str, int] = {}
    found: dict[int, Twin] = {}
    for place, digest in enumerate(digests):
        if digest in first:
            found[place] = Twin(first[digest], 1.0, POSITIONS[0], exact=True)
        first.setdefault(digest, place)
    unique = np.array(sorted(first.values()), np.int64)
    links = _links(small[unique], config) if len(unique) else []
    parent = list(range(len(unique)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    best: dict[int, tuple[float, int]] = {}
    for i, j, correlation, position in links:  # i < j
        low, high = sorted((root(i), root(j)))
        parent[high] = low
        best[j] = max(best.get(j, (0.0, 0)), (correlation, -position))
        best.setdefault(i, (correlation, -position))
    for j, (correlation, position) in best.items():
        if root(j) != j:
            of = int(unique[root(j)])
            found[int(unique[j])] = Twin(of, correlation, POSITIONS[-position], exact=False)
    for place, twin in list(found.items()):
        if twin.exact and twin.of in found:  # copies of a near duplicate belong to its group
            found[place] = Twin(found[twin.of].of, 1.0, POSITIONS[0], exact=True)
    return found


def _links(small: NDArray[np.uint8], config: LikenessConfig) -> list[tuple[int, int, float, int]]:
    """Return pairs i < j that are alike, with correlation and position, in order."""
    signs = _signs(small)
    plain = _packed(signs)
    turned = _turned_hashes(signs)
    detail = np.empty(small.shape, np.float16)  # 8 KiB an image
    for start in range(0, len(small), BLOCK):
        detail[start : start + BLOCK] = _detail(small[start : start + BLOCK])
    known = np.array([bool(each.any()) for each in detail])
    found: dict[tuple[int, int], tuple[float, int]] = {}
    for start in range(0, len(small), BLOCK):
        block = plain[start : start + BLOCK, None]
        for place, hashed in enumerate(turned):
            near = np.bitwise_count(block ^ hashed[None, :]) <= config.bits
            i, j = np.nonzero(near)
            i += start
            keep = (i < j) & known[i] & known[j]
            i, j = i[keep], j[keep]
            for part in range(0, len(i), BLOCK):
                a, b = i[part : part + BLOCK], j[part : part + BLOCK]
                other_way = positions(detail[b])[place].astype(np.float32)
                alike = (detail[a] * other_way).sum((1, 2))
                for k in np.flatnonzero(alike >= config.correlation):
                    key = (int(a[k]), int(b[k]))
                    value = (min(round(float(alike[k]), 4), 1.0), -place)
                    found[key] = max(found.get(key, (0.0, 0)), value)
    return [(i, j, value, -place) for (i, j), (value, place) in sorted(found.items())]


def _signs(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of the lowest 8 x 8 coefficients of the cosine transform are positive."""
    frequency, place = np.arange(COEFFICIENTS)[:, None], np.arange(SIDE)
    waves = np.cos(np.pi * (place + 0.5) * frequency / SIDE).astype(np.float32)
    signs = (waves @ small.astype(np.float32) @ waves.T) > 0
    signs[:, 0, 0] = False
    return np.asarray(signs)


def _turned_hashes(signs: NDArray[np.bool_]) -> list[NDArray[np.uint64]]:
    """Return the hashes of all positions, from the signs of the first one.

    Mirroring turns the sign of odd frequencies; a quarter turn swaps rows and columns and mirrors.
    """
    odd = np.zeros((COEFFICIENTS, COEFFICIENTS), np.bool_)
    odd[:, 1::2] = True
    made, turned = [], signs
    for _ in range(4):
        made += [_packed(turned), _packed(turned ^ odd)]
        turned = turned.swapaxes(1, 2) ^ odd.T
    return made


def _packed(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    weights = np.uint64(1) << np.arange(COEFFICIENTS**2, dtype=np.uint64)
    flat = signs.reshape(len(signs), COEFFICIENTS**2)
    return np.asarray((flat * weights).sum(1, dtype=np.uint64))


def _detail(images: NDArray[np.generic]) -> Floats:
    """Return the images less their means over 9 x 9, of length 1; 0 where there is no detail."""
    values = np.asarray(images, np.float32)
    half = AROUND // 2
    padded = np.pad(values, ((0, 0), (half + 1, half), (half + 1, half)), mode="edge")
    padded[:, 0] = padded[:, :, 0] = 0
    sums = padded.cumsum(1, dtype=np.float64).cumsum(2)
    box = (
        sums[:, AROUND:, AROUND:]
        - sums[:, :-AROUND, AROUND:]
        - sums[:, AROUND:, :-AROUND]
        + sums[:, :-AROUND, :-AROUND]
    )
    detail = values - (box / AROUND**2).astype(np.float32)
    detail -= detail.mean((1, 2), keepdims=True)
    length = np.sqrt(np.square(detail).sum((1, 2), keepdims=True))
    enough = length >= LEAST_DETAIL * SIDE
    return np.where(enough, detail / np.maximum(length, 1e-6), np.float32(0))
