"""Scores of parts seen several times: of magnetic tiles by a simple detector, or made up."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tasks.defects.promise.parts import Scored

Floats = NDArray[np.float64]
PATCH = 16
LEARNT_FROM = 40
"""Good tiles that the detector learns from; the rest are scored."""


def made_up(rng: np.random.Generator, parts: int, images: int = 4) -> tuple[Scored, Scored]:
    """Return defective and good parts: a skewed level of the part, a smaller one of each image."""
    names = [str(i) for i in range(parts) for _ in range(images)]
    level = np.where(rng.random(parts) < 0.12, rng.gamma(2, 0.4, parts), rng.gamma(6, 0.8, parts))
    good = rng.gamma(2, 0.35, parts)
    each = rng.normal(0, 0.25, (2, parts, images))
    ng, ok = level[:, None] + each[0], good[:, None] + each[1]
    return Scored(ng.ravel(), names), Scored(ok.ravel(), names)


def tiles(folder: Path | None, seed: int) -> tuple[Scored, Scored] | None:
    """Score the magnetic tiles of a folder, else of PENSTOCK_DATA; None without.

    A tile is a part, its exposures are its images. Patches' level, spread and slopes, after the
    image's own median and spread, have a Mahalanobis distance to those of some good tiles, and the
    mean of an image's three largest is its score.
    """
    base = Path(os.environ["PENSTOCK_DATA"]) / "defects" if "PENSTOCK_DATA" in os.environ else None
    folder = (folder or base or Path()) / "magnetic_tile"
    if not (folder / "tile_groups.csv").is_file():
        return None
    with (folder / "tile_groups.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    patches = [_patches(folder / row["class"] / "Imgs" / row["file"]) for row in rows]
    parts = [f"{row['class']} {row['tile_group']}" for row in rows]
    good = [row["class"] == "MT_Free" for row in rows]
    free = sorted({part for part, fine in zip(parts, good, strict=True) if fine})
    learnt = set(np.random.default_rng(seed).permutation(free)[:LEARNT_FROM].tolist())
    known = np.concatenate([p for p, part in zip(patches, parts, strict=True) if part in learnt])
    centre = known.mean(0)
    inverse = np.linalg.inv(np.cov(known.T) + 1e-6 * np.eye(known.shape[1]))
    scores = np.array([_score(each - centre, inverse) for each in patches])
    ng = [i for i, fine in enumerate(good) if not fine]
    ok = [i for i, fine in enumerate(good) if fine and parts[i] not in learnt]
    kinds = [rows[i]["class"].removeprefix("MT_").lower() for i in ng]
    return (
        Scored(scores[ng], [parts[i] for i in ng], kinds),
        Scored(scores[ok], [parts[i] for i in ok]),
    )


def _score(away: Floats, inverse: Floats) -> float:
    distances = np.einsum("ij,jk,ik->i", away, inverse, away)
    return float(np.log(np.sort(distances)[-3:].mean()))


def _patches(path: Path) -> Floats:
    """Return float64 [patches, features] of an image."""
    with Image.open(path) as image:
        gray = np.asarray(image.convert("L"), dtype=np.float64)
    gray = gray - ndimage.uniform_filter(gray, 4 * PATCH + 1)
    gray /= np.median(np.abs(gray)) + 1e-3
    maps = [gray, np.abs(gray), *(np.abs(ndimage.sobel(gray, axis)) for axis in (0, 1))]
    smooth = ndimage.gaussian_filter(gray, 2)
    maps += [smooth, smooth**2]
    half = PATCH // 2
    means = [ndimage.uniform_filter(one, PATCH)[half:-half:half, half:-half:half] for one in maps]
    return np.stack([mean.ravel() for mean in means], axis=1)
