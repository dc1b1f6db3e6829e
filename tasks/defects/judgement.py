"""What a detector says of one image, and where the verdicts part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.defects.samples import Box

Verdict = Literal["OK", "NG", "REVIEW"]
Heat = NDArray[np.float32]
UNKNOWN = "unknown"
"""Type of a defect that is like none of those that were labelled."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the verdicts part: ``OK`` below, ``NG`` above, a person in between.

    Attributes:
        ok_below: Scores below are OK.
        ng_from: Scores from here on are NG; ``ok_below <= ng_from``.
    """

    ok_below: float
    ng_from: float

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if math.isnan(self.ok_below) or not self.ok_below <= self.ng_from:
            raise ValueError(
                f"thresholds {self.ok_below}, {self.ng_from}: give ok_below <= ng_from"
            )

    def verdict(self, score: float) -> Verdict:
        """Return the verdict of a score; one that is no number goes to a person."""
        if score < self.ok_below:
            return "OK"
        return "NG" if score >= self.ng_from else "REVIEW"


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """One image, judged.

    Attributes:
        score: The higher, the more likely defective.
        heat: float32 [h, w] of the image's size: where it looks defective, 0 to 1.
        kinds: Type of defect -> probability, sums to 1; with `UNKNOWN` among them.
        boxes: Where the defects are, best first.
        verdict: By the thresholds.
        like: Names of the labelled images it looks like, likest first.
    """

    score: float
    heat: Heat
    verdict: Verdict = "REVIEW"
    kinds: Mapping[str, float] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    like: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The likeliest type, "" where none is known."""
        return max(self.kinds, key=lambda kind: self.kinds[kind], default="")
