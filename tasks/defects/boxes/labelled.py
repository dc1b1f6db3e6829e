"""Whether the labels of a line carry a detector of boxes, and which images it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.fit import with_boxes
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Sample

T = TypeVar("T")
MOST = 500
"""Images with boxes that are learned from; each is then seen some seven times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxesConfig:
    """Whether a folder gets a detector of boxes.

    Attributes:
        fit: None: where enough images carry boxes or masks. True: even of few, and it is an error
            where there are none. False: never.
        least: How many are enough.
        detector: How it is fitted.
    """

    fit: bool | None = None
    least: int = 20
    detector: BoxConfig = field(default_factory=BoxConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.least < 1:
            raise ValueError(f"least is {self.least}; give at least 1 image with boxes")


class Drawn(NamedTuple):
    """What there is to learn boxes from.

    Attributes:
        samples: Images with boxes, then good ones; empty where the labels do not carry it, or where
            it is not asked for.
        reason: Why the labels do not carry it, else "".
        left_aside: Images whose boxes lack a type, beside enough that have one.
    """

    samples: list[Sample]
    reason: str = ""
    left_aside: int = 0


def drawn(samples: Sequence[Sample], config: BoxesConfig) -> Drawn:
    """Return the images to fit boxes to.

    A piece of a mask counts as a box. Where enough images have boxes of known types only, those are
    taken; else all that have boxes, as of one nameless type. Good images are half as many at most:
    a verdict OK shows no boxes, so they are worth less of the training.

    Args:
        samples: Labelled.
        config: What is enough.
    """
    if config.fit is False:
        return Drawn([])
    boxed = [one for one in map(with_boxes, samples) if one.label == "ng" and one.boxes]
    named = [one for one in boxed if is_named(one)]
    least = 1 if config.fit else config.least
    if len(boxed) < least:
        missing = f"{len(boxed)} of the images to learn from have boxes or masks"
        return Drawn([], f"{missing}; label {least - len(boxed)} more")
    typed = len(named) >= config.least or len(named) == len(boxed)
    chosen = spread(named if typed else [nameless(one) for one in boxed], MOST)
    good = [sample for sample in samples if sample.label == "ok"]
    aside = len(boxed) - len(named) if typed else 0
    return Drawn([*chosen, *spread(good, len(chosen) // 2)], "", aside)


def is_named(sample: Sample) -> bool:
    """Return whether every box of a sample has a type."""
    return all(box.kind not in {"", UNKNOWN} for box in sample.boxes)


def nameless(sample: Sample) -> Sample:
    """Return the sample with boxes of no type."""
    boxes = tuple(replace(box, kind="") for box in sample.boxes)
    return replace(sample, kind="", boxes=boxes)


def spread(values: Sequence[T], most: int) -> list[T]:
    """Return at most so many values, evenly spread.

    >>> spread("abcdef", 3), spread("ab", 3), spread("ab", 0)
    (['a', 'c', 'e'], ['a', 'b'], [])
    """
    count = min(len(values), most)
    return [values[place * len(values) // count] for place in range(count)]
