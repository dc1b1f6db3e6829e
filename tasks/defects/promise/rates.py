"""What was measured on parts that nothing was chosen by: error rates with exact intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.slices.intervals import exact_rate
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.bounds import slack
from tasks.defects.promise.parts import Per, Scored, part_scores


@dataclass(frozen=True, slots=True)
class Rate:
    """An error rate.

    Attributes:
        name: Type of defect, or what else was counted.
        parts: Parts looked at.
        wrong: Of them judged wrongly.
        low: Lower limit of the rate (Clopper and Pearson), 0 without parts.
        high: Upper limit, 1 without parts.
    """

    name: str
    parts: int
    wrong: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Share judged wrongly, NaN without parts."""
        return self.wrong / self.parts if self.parts else float("nan")


def rate(name: str, wrong: int, parts: int, confidence: float = 0.95) -> Rate:
    """Return a rate with two-sided Clopper and Pearson limits.

    >>> round(rate("crack", 0, 50).high, 4)
    0.0711
    """
    tail = slack(confidence) / 2
    low, high = exact_rate(np.array([float(wrong)]), np.array([float(parts)]), tail)
    return Rate(name, parts, wrong, float(low[0]), float(high[0]))


def escape_rates(
    ng: Scored,
    thresholds: Thresholds,
    *,
    per: Per = "every image",
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Rate]:
    """Return how many defective parts pass as OK: all, then each type, most parts first.

    The intervals of the types hold all at once: each is taken at a level divided by their number
    (Bonferroni; a part with two types makes them dependent). That of all parts is its own.

    Args:
        ng: Defective images of parts that nothing was trained or chosen by.
        thresholds: Where the verdicts part.
        per: What counts of a part with several images.
        confidence: Of the interval of all, and of all types' together.
        seed: Draws the image of each part where one image counts.
    """
    kinds = sorted({kind for kind in ng.kinds if kind})
    shared = 1.0 - slack(confidence) / max(len(kinds), 1)
    found = []
    for kind in ["", *kinds]:
        scores = part_scores(ng.of_kind(kind) if kind else ng, "escape", per, seed)
        wrong = int((scores < thresholds.ok_below).sum())
        found.append(rate(kind or "all", wrong, len(scores), shared if kind else confidence))
    return [found[0], *sorted(found[1:], key=lambda one: -one.parts)]


def false_reject_rate(
    ok: Scored,
    thresholds: Thresholds,
    *,
    per: Per = "every image",
    confidence: float = 0.95,
    seed: int = 0,
) -> Rate:
    """Return how many good parts are rejected as NG; as `escape_rates`."""
    scores = part_scores(ok, "false reject", per, seed)
    wrong = int((scores >= thresholds.ng_from).sum())
    return rate("good", wrong, len(scores), confidence)
