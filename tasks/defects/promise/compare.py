"""Whether scores of today may come from where the calibration came from.

The promise holds for parts that are exchangeable with the calibration's. Two batches of parts are
compared by two tests (Kolmogorov-Smirnov, Mann-Whitney), of which twice the lesser p counts. A low
p ends the promise; a high one does not prove it: few parts hide much. For a line that runs on,
looked at again and again, use the watch, whose false alarms do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.cleaning.profile.drift.statistics import compare_numbers
from tasks.defects.promise.parts import Per, Scored, Side, part_scores

LEAST_PARTS = 5


@dataclass(frozen=True, slots=True)
class Shift:
    """Two batches, compared.

    Attributes:
        p: Chance of a difference like this one without any shift.
        distance: Largest gap between the two shares below a score.
        where: At that score.
        parts: In the calibration, and now.
        shifted: Whether ``p`` is at most the level asked for.
    """

    p: float
    distance: float
    where: float
    parts: tuple[int, int]
    shifted: bool


def compare(
    calibration: Scored,
    current: Scored,
    *,
    side: Side = "escape",
    per: Per = "every image",
    level: float = 0.01,
    seed: int = 0,
) -> Shift:
    """Compare scores of parts of one side, each by the score that decides for it.

    Args:
        calibration: Images of the calibration.
        current: Images of now, defective if those are, good if those are.
        side: Which error the promise is of.
        per: What counts of a part with several images.
        level: Of false alarms.
        seed: Draws the image of each part where one image counts.

    Raises:
        ValueError: Fewer than five parts on a side.
    """
    before = part_scores(calibration, side, per, seed)
    now = part_scores(current, side, per, seed)
    if min(len(before), len(now)) < LEAST_PARTS:
        raise ValueError(
            f"{len(before)} and {len(now)} parts; give at least {LEAST_PARTS} of each to compare"
        )
    found = compare_numbers(before, now)
    counts = (len(before), len(now))
    return Shift(found.p, found.effect, found.where, counts, found.p <= level)
