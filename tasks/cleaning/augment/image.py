"""Images made for measured gaps: others moved into the slice, or those of the slice varied.

A gap is a band of a property (``brightness``, ``contrast``, ``sharpness``) in which a model was
measured to be worse. For a band of brightness or contrast, images from outside are moved into it: a
dark slice that is rare is filled by darkening others. For all other slices its own images are
varied by recipes that the caller vouches for: whether a flipped part is still a good part, only
people know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.augment.tabular import MADE, AugmentError
from tasks.cleaning.slices.gaps import Gap

Image = NDArray[np.uint8]
PROPERTIES = ("brightness", "contrast", "sharpness")
TRIES = 8


def image_properties(images: Sequence[Image]) -> pl.DataFrame:
    """Measure images, as texts that slices can be made of.

    Args:
        images: uint8 [height, width] or [height, width, channels], of any sizes.

    Returns:
        ``brightness`` (mean, 0..255), ``contrast`` (standard deviation) and ``sharpness``
        (standard deviation of the Laplacian).

    Raises:
        AugmentError: For an array that is no image.
    """
    rows = [_measured(image, i) for i, image in enumerate(images)]
    table = np.array(rows, np.float64).reshape(-1, len(PROPERTIES))
    return pl.DataFrame(
        {name: [f"{v:.4f}" for v in table[:, i]] for i, name in enumerate(PROPERTIES)},
        schema=dict.fromkeys(PROPERTIES, pl.String),
    )


def _measured(image: Image, number: int) -> tuple[float, float, float]:
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or min(image.shape[:2]) < 3:
        raise AugmentError(
            f"image {number} is {image.dtype} {image.shape}; give uint8 [height, width] or "
            "[height, width, channels], 3 pixels at least"
        )
    gray = image.astype(np.float64)
    gray = gray.mean(axis=2) if gray.ndim == 3 else gray
    middle = gray[1:-1, 1:-1]
    edges = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * middle
    return float(gray.mean()), float(gray.std()), float(edges.std())


def _flip(image: Image, _: np.random.Generator) -> Image:
    return np.ascontiguousarray(image[:, ::-1])


def _turn(image: Image, rng: np.random.Generator) -> Image:
    return np.ascontiguousarray(np.rot90(image, int(rng.integers(1, 4))))


def _rotate(image: Image, rng: np.random.Generator) -> Image:
    """Rotate by up to 10 degrees, the border repeated outwards."""
    from PIL import Image as Pillow

    pad = max(image.shape[:2]) // 4 + 1
    wide = np.pad(image, [(pad, pad), (pad, pad), *[(0, 0)] * (image.ndim - 2)], mode="edge")
    turned = Pillow.fromarray(wide).rotate(rng.uniform(-10, 10), Pillow.Resampling.BILINEAR)
    return np.asarray(turned)[pad:-pad, pad:-pad].copy()


def _shift(image: Image, rng: np.random.Generator) -> Image:
    """Move by up to a tenth, the border repeated."""
    most = [max(1, size // 10) for size in image.shape[:2]]
    edge = [(m, m) for m in most] + [(0, 0)] * (image.ndim - 2)
    wide = np.pad(image, edge, mode="edge")
    top, left = (int(rng.integers(0, 2 * m + 1)) for m in most)
    return wide[top : top + image.shape[0], left : left + image.shape[1]].copy()


def _noise(image: Image, rng: np.random.Generator) -> Image:
    return _pixels(image + rng.normal(0, 4, image.shape))


RECIPES: Mapping[str, Callable[[Image, np.random.Generator], Image]] = {
    "flip": _flip,
    "turn": _turn,
    "rotate": _rotate,
    "shift": _shift,
    "noise": _noise,
}
"""Name -> variation of an image: mirrored, quarter turns, ±10 degrees, ±10 %, noise of 4 levels."""


def moved_to(image: Image, name: str, value: float) -> Image:
    """Return an image whose brightness or contrast is near a value, levels times a factor."""
    mean, spread, _ = _measured(image, 0)
    if name == "brightness":
        return _pixels(image * (value / max(mean, 1e-9)))
    return _pixels(mean + (image - mean) * (value / max(spread, 1e-9)))


@dataclass(frozen=True, slots=True)
class MadeImages:
    """Made images.

    Attributes:
        images: The images.
        made: Frame of ``tabular.MADE``, one row for each.
        short: Gap -> images that were wanted and could not be made.
    """

    images: list[Image]
    made: pl.DataFrame
    short: Mapping[str, int]


def augment_images(
    images: Sequence[Image],
    gaps: Sequence[Gap],
    *,
    recipes: Sequence[str] = (),
    splits: Sequence[str] | None = None,
    into: str = "train",
    seed: int = 0,
) -> MadeImages:
    """Make images for gaps; the label of each is that of the one it was made from.

    Args:
        images: As in :func:`image_properties`, whose columns the gaps name.
        gaps: Of a slice report.
        recipes: Names of ``RECIPES`` that leave a label right.
        splits: Split of each image; images are made of those ``into`` one split alone.
        into: That split.
        seed: Of all draws.

    Raises:
        AugmentError: For unknown recipes, gaps in other columns, and splits that do not fit.
    """
    unknown = sorted(set(recipes) - set(RECIPES))
    if unknown:
        raise AugmentError(f"no recipe {unknown[0]!r}; there are {', '.join(RECIPES)}")
    if splits is not None and len(splits) != len(images):
        raise AugmentError(f"{len(images):,} images need as many splits, not {len(splits):,}")
    facts = image_properties(images)
    usable = np.array([True] * len(images) if splits is None else [s == into for s in splits])
    rng = np.random.default_rng(seed)
    made, rows, short = list[Image](), list[dict[str, object]](), dict[str, int]()
    for gap in (one for one in gaps if one.wanted > 0):
        strange = [one.column for one in gap.conditions if one.column not in PROPERTIES]
        if strange:
            raise AugmentError(f"{strange[0]!r} is no property; there are {', '.join(PROPERTIES)}")
        inside = facts.select(gap.holds.alias("in"))["in"].to_numpy()
        new, parents, how = _for_gap(images, facts, gap, inside, usable, recipes, rng)
        made += new
        rows += [
            {"made_from": [parent], "gap": gap.name, "reason": gap.reason, "recipe": recipe,
             "seed": seed}
            for parent, recipe in zip(parents, how, strict=True)
        ]  # fmt: skip
        if len(new) < gap.wanted:
            short[gap.name] = gap.wanted - len(new)
    return MadeImages(made, pl.DataFrame(rows, schema=dict(MADE)), short)


def _for_gap(
    images: Sequence[Image],
    facts: pl.DataFrame,
    gap: Gap,
    inside: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    recipes: Sequence[str],
    rng: np.random.Generator,
) -> tuple[list[Image], list[int], list[str]]:
    made, parents, how = list[Image](), list[int](), list[str]()
    column = gap.conditions[0].column
    movable = len(gap.conditions) == 1 and column in {"brightness", "contrast"}
    members, others = np.flatnonzero(inside & usable), np.flatnonzero(~inside & usable)
    if not len(members) or not (recipes or (movable and len(others))):
        return made, parents, how
    seen = facts[column].cast(pl.Float64).to_numpy()[members]
    for _ in range(TRIES * gap.wanted):
        if len(made) == gap.wanted:
            break
        move = movable and len(others) > 0
        base = int(rng.choice(others if move else members))
        if move:
            recipe, image = f"{column}-moved", moved_to(images[base], column, rng.choice(seen))
        else:
            recipe = str(rng.choice(list(recipes)))
            image = RECIPES[recipe](images[base], rng)
        if image_properties([image]).select(gap.holds.alias("in"))["in"][0]:
            made.append(image)
            parents.append(base)
            how.append(recipe)
    return made, parents, how


def _pixels(levels: NDArray[np.float64]) -> Image:
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)
