"""Types of what a detector found: named by the whole image, or by its hottest spot cut out.

Descriptors are made for texture: they know a surface that is defective all over, and hardly notice
a pit of a few pixels. Which view tells more is asked of the labelled parts themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.defects.classify.descriptors import Cache
from tasks.defects.classify.ensemble import deal_folds
from tasks.defects.classify.fit import TypeClassifier, TypeJudgement, TypesConfig, fit_types
from tasks.defects.judgement import UNKNOWN, Heat, Judgement
from tasks.defects.samples import Pixels, Sample, parts_of

View = Literal["whole image", "hottest spot"]
VIEWS: tuple[View, ...] = ("whole image", "hottest spot")
LEAST_PARTS = 2
"""Parts below which a type is not learned, and types below which none is."""
FOLDS = 3
HOT = 0.5
"""Share of the highest heat above which pixels belong to the spot."""
MARGIN, LEAST_SIDE = 8, 32
"""Pixels around a spot, and those of a side that are left at least."""


class Found(NamedTuple):
    """A sample as the detector sees it.

    Attributes:
        sample: The image.
        heat: float32 [h, w] of its size.
    """

    sample: Sample
    heat: Heat


@dataclass(frozen=True, slots=True, eq=False)
class FoundTypes:
    """Names the type of what a detector found.

    Attributes:
        classifier: Of the view.
        view: What it looks at.
        left_out: Types of too few parts -> number of those; what is like them is unknown.
        chosen_by: View -> share of labelled images that it named right when they were held out.
        decides: Whether it names better than the detector; else it only tells what is alike.
    """

    classifier: TypeClassifier
    view: View
    left_out: Mapping[str, int]
    chosen_by: Mapping[str, float]
    decides: bool = True

    def judge(self, pixels: Pixels, heat: Heat) -> TypeJudgement:
        """Name what is on one image.

        Args:
            pixels: uint8 [h, w] or [h, w, 3].
            heat: float32 [h, w], where the detector found it.
        """
        return self.classifier.judge([viewed(pixels, heat, self.view)])[0]

    def named(self, pixels: Pixels, said: Judgement) -> Judgement:
        """Return a detector's judgement with the type named, and with what it looks like."""
        told = self.judge(pixels, said.heat)
        if not self.decides:
            return replace(said, like=told.nearest)
        boxes = tuple(replace(box, kind=told.kind) for box in said.boxes)
        return replace(said, kinds=told.probabilities, boxes=boxes, like=told.nearest)


def learn_types(
    found: Sequence[Found], config: TypesConfig | None = None, unlabelled: Sequence[Found] = ()
) -> FoundTypes | None:
    """Learn the types of labelled defects; None unless two of them have `LEAST_PARTS` parts each.

    The hottest spot is looked at, unless the whole image names more held-out parts right by more
    than one standard error of the difference.

    Args:
        found: Labelled images, those without a type left aside.
        config: How types are learned.
        unlabelled: More images of defects, see `fit_types`.
    """
    parts = _parts_of_types([one.sample for one in found])
    kinds = {kind for kind, own in parts.items() if len(own) >= LEAST_PARTS}
    known = [one for one in found if one.sample.kind in kinds]
    if len(kinds) < LEAST_PARTS:
        return None
    cache: Cache = {}
    cuts = {view: [_cut(one, view) for one in known] for view in VIEWS}
    whole, spot = (_held_out(cuts[view], config, cache) for view in VIEWS)
    more_right = int(whole.sum()) - int(spot.sum())
    view = VIEWS[0] if more_right > math.sqrt(int((whole != spot).sum())) else VIEWS[1]
    more = [viewed(one.sample.pixels, one.heat, view) for one in unlabelled]
    return FoundTypes(
        fit_types(cuts[view], config, more, cache),
        view,
        {kind: len(own) for kind, own in sorted(parts.items()) if kind not in kinds},
        {one: float(right.mean()) for one, right in zip(VIEWS, (whole, spot), strict=True)},
    )


def viewed(pixels: Pixels, heat: Heat, view: View) -> Pixels:
    """Return what a view shows of an image: all of it, or a square around its hottest spot."""
    if view == "whole image":
        return pixels
    warm = np.clip(np.nan_to_num(np.asarray(heat, np.float32)), 0, None)
    spots, _ = ndimage.label(warm >= HOT * warm.max())
    spot = spots[np.unravel_index(int(warm.argmax()), warm.shape)]
    rows, columns = ndimage.find_objects(spots)[spot - 1]
    side = max(rows.stop - rows.start, columns.stop - columns.start) + 2 * MARGIN
    side = max(side, LEAST_SIDE)
    top, left = (
        int(np.clip((place.start + place.stop - side) // 2, 0, max(0, length - side)))
        for place, length in zip((rows, columns), warm.shape, strict=True)
    )
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _cut(one: Found, view: View) -> Sample:
    sample = one.sample
    return replace(sample, pixels=viewed(sample.pixels, one.heat, view), mask=None, boxes=())


def _held_out(
    samples: Sequence[Sample], config: TypesConfig | None, cache: Cache
) -> NDArray[np.bool_]:
    """Return which samples are named right by fits without their parts."""
    config = replace(config or TypesConfig(), false_unknown=0.0)
    kinds = sorted({sample.kind for sample in samples})
    targets = np.array([kinds.index(sample.kind) for sample in samples], np.int64)
    folds = deal_folds(targets, parts_of(samples), FOLDS)
    right = np.zeros(len(samples), dtype=np.bool_)
    for fold in range(FOLDS):
        out = [s for s, place in zip(samples, folds, strict=True) if place == fold]
        rest = [s for s, place in zip(samples, folds, strict=True) if place != fold]
        if out and rest:
            named = fit_types(rest, config, cache=cache)
            said = named.judge([sample.pixels for sample in out], cache)
            right[folds == fold] = [a.kind == b.kind for a, b in zip(said, out, strict=True)]
    return right


def _parts_of_types(samples: Sequence[Sample]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for sample, part in zip(samples, parts_of(samples), strict=True):
        if sample.kind and sample.kind != UNKNOWN:
            found.setdefault(sample.kind, set()).add(part)
    return found
