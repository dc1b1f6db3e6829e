"""Label-efficiency curves: which images are asked for next, and how good the types get by that."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.cleaning.images.features import small
from tasks.cleaning.images.likeness import twins
from tasks.defects.active.guess import Components, Guess
from tasks.defects.active.rank import RankConfig, rank
from tasks.defects.active.texture import texture
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.surface import draw_surface, varied

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
START, BATCH, MOST = 10, 5, 100
COUNTS = np.arange(START, MOST + 1, BATCH)


@dataclass(frozen=True, slots=True)
class Images:
    """Images of several types, near-duplicates left out.

    Attributes:
        features: float32 [n, f].
        types: int64 [n].
        groups: int64 [n], equal for images of one part.
        names: Of the types.
    """

    features: NDArray[np.float32]
    types: Ints
    groups: Ints
    names: tuple[str, ...]

    @classmethod
    def of(cls, images: list[NDArray[np.uint8]], types: list[str], groups: list[str]) -> Images:
        """Measure images and leave copies out."""
        names, number = np.unique(types, return_inverse=True)
        _, group = np.unique(groups, return_inverse=True)
        little = np.stack([small(image) for image in images])
        repeats = twins([str(i) for i in range(len(images))], little)
        kept = [i for i in range(len(images)) if i not in repeats]
        features = np.stack([texture(images[i]) for i in kept])
        return cls(features, number[kept].astype(np.int64), group[kept].astype(np.int64),
                   tuple(map(str, names)))  # fmt: skip


def read_images(folder: Path | None, which: str) -> Images | None:
    """Read NEU-DET or the magnetic tiles; None where no folder holds them."""
    base = Path(os.environ["PENSTOCK_DATA"]) / "defects" if "PENSTOCK_DATA" in os.environ else None
    folder = folder or base
    if folder is None:
        return None
    pattern = {"neu": "neu_det/images/**/*.jpg", "tile": "magnetic_tile/MT_*/Imgs/*.jpg"}[which]
    files = sorted(folder.glob(pattern))
    if not files:
        return None
    images = [np.asarray(Image.open(file).convert("L")) for file in files]
    if which == "neu":
        types = [re.sub(r"_\d+$", "", file.stem) for file in files]
        return Images.of(images, types, [file.stem for file in files])
    with (folder / "magnetic_tile" / "tile_groups.csv").open(newline="") as handle:
        group = {row["file"]: row["tile_group"] for row in csv.DictReader(handle)}
    return Images.of(images, [file.parts[-3] for file in files], [group[f.name] for f in files])


def made_up(seed: int, each: int, size: int = 96) -> Images:
    """Make up surfaces of six types, two of each of three families, photographed anew each time."""
    rng = np.random.default_rng(seed)
    images, types = [], []
    for place, family in enumerate(("cast", "brushed", "perlin") * 2):
        surface = draw_surface(family, rng)
        for _ in range(each):
            field = varied(surface, rng, 0.3).render((size, size), rng)
            images.append(Camera.draw(rng).taken(np.clip(field, 0, 1), rng))
            types.append(f"{family} {place // 3}")
    return Images.of(images, types, [str(i) for i in range(len(images))])


class Case(NamedTuple):
    """One draw of pool and test images.

    Attributes:
        pool: float64 [n, d] components of the images that may be asked for.
        types: int64 [n].
        groups: int64 [n].
        test: float64 [m, d] of images that are never asked for.
        truth: int64 [m].
        kinds: Number of types.
        rng: For what an arm draws.
    """

    pool: Floats
    types: Ints
    groups: Ints
    test: Floats
    truth: Ints
    kinds: int
    rng: np.random.Generator


def drawn(images: Images, seed: tuple[int, int], share: float = 1 / 3) -> Case:
    """Draw test images, whole parts at a time; components are those of the pool alone."""
    rng = np.random.default_rng(seed)
    parts = rng.permutation(np.unique(images.groups))
    held = np.isin(images.groups, parts[: round(share * len(parts))])
    components = Components.of(images.features[~held])
    pool, test = (components.of_images(images.features[part]) for part in (~held, held))
    return Case(
        pool, images.types[~held], images.groups[~held], test, images.types[held],
        len(images.names), rng,
    )  # fmt: skip


Choose = Callable[[Case, Guess | None, Ints, int], Ints]
"""Which images of a case to ask for, by what is known, those asked for, and how many."""


def by_rank(config: RankConfig) -> Choose:
    """Return the choice of `rank`."""

    def choose(case: Case, guess: Guess | None, asked: Ints, number: int) -> Ints:
        odds = None if guess is None else guess.probabilities(case.pool, case.kinds)
        counts = np.bincount(case.types[asked], minlength=case.kinds)
        return rank(case.pool, odds, asked, number, config, groups=case.groups, counts=counts).order

    return choose


def at_random(case: Case, guess: Guess | None, asked: Ints, number: int) -> Ints:
    """Choose any images."""
    free = np.setdiff1d(np.arange(len(case.pool)), asked)
    return case.rng.permutation(free)[:number]


def in_balance(case: Case, guess: Guess | None, asked: Ints, number: int) -> Ints:
    """Choose at random, as many of each type: nobody can without knowing the types."""
    chosen: list[int] = []
    for _ in range(number):
        have = np.bincount(case.types[[*asked, *chosen]], minlength=case.kinds)
        free = np.setdiff1d(np.arange(len(case.pool)), [*asked, *chosen])
        left = np.bincount(case.types[free], minlength=case.kinds)
        rare = np.where(left > 0, have + case.rng.random(case.kinds), np.inf).argmin()
        chosen.append(int(case.rng.choice(free[case.types[free] == rare])))
    return np.array(chosen, np.int64)


class Curve(NamedTuple):
    """How good the types get with 10, 15, ... 100 labels.

    Attributes:
        inductive: Share of the test images that is named rightly [numbers].
        balanced: Mean share over the types.
        transductive: Share of the pool's images without a label.
    """

    inductive: list[float]
    balanced: list[float]
    transductive: list[float]


def curve(case: Case, choose: Choose) -> Curve:
    """Ask for labels and measure after each batch."""
    asked, guess = np.zeros(0, np.int64), None
    found = Curve([], [], [])
    for count in COUNTS:
        asked = np.concatenate([asked, choose(case, guess, asked, int(count) - len(asked))])
        assert len(np.unique(asked)) == count
        guess = Guess.of(case.pool[asked], case.types[asked])
        right = guess.probabilities(case.test, case.kinds).argmax(1) == case.truth
        found.inductive.append(float(right.mean()))
        each = [right[case.truth == one].mean() for one in np.unique(case.truth)]
        found.balanced.append(float(np.mean(each)))
        rest = np.setdiff1d(np.arange(len(case.pool)), asked)
        named = guess.probabilities(case.pool[rest], case.kinds).argmax(1)
        found.transductive.append(float((named == case.types[rest]).mean()))
    return found


def labels_to(curves: Floats, target: float) -> float:
    """Return the least number of labels from which on the mean stays at the target, else NaN.

    Args:
        curves: float64 [draws, numbers].
        target: Accuracy.
    """
    below = np.flatnonzero(curves.mean(0) < target - 1e-9)
    place = 0 if len(below) == 0 else int(below[-1]) + 1
    return float(COUNTS[place]) if place < len(COUNTS) else float("nan")


def ratio(active: Floats, random: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Return labels to the accuracy of 100 random ones, with an interval over redraws of draws."""
    found = labels_to(active, float(random[:, -1].mean())) / MOST
    again = []
    for _ in range(1_000):
        some = rng.integers(0, len(active), len(active))
        again.append(labels_to(active[some], float(random[some, -1].mean())) / MOST)
    # A redraw in which the accuracy is not reached counts as beyond all numbers.
    often = np.nan_to_num(again, nan=np.inf)
    low, high = np.quantile(often, [0.025, 0.975], method="nearest")
    return {"labels_ratio": found, "labels_ratio_low": low, "labels_ratio_high": high}
