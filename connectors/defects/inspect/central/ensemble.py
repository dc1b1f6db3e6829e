"""Several models, each asked in several positions and exposures, as one inspector.

Averaging over positions and exposures takes out what a model answers by chance of the view
(test-time augmentation); averaging over models what it answers by chance of its training. Scores of
models have no common scale, so each is told apart by centre and spread over known good images;
probabilities as log-odds, or those near 0 and 1 would all be one.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.defects.inspect.inspector import Inspector
from tasks.defects.contours import boxes_of_heat
from tasks.defects.judgement import Heat, Judgement, Thresholds
from tasks.defects.samples import Pixels

POSITIONS = 8
USUAL_POSITIONS = 4
"""As it is and mirrored; a right angle turns grain and light, which models have not seen so."""
_TURNS = tuple((turns, mirrored) for turns in (0, 2, 1, 3) for mirrored in (False, True))
_LEAST = 1e-6
"""Probabilities nearer to 0 or 1 count as this near."""


@dataclass(frozen=True, slots=True)
class Member:
    """A model of an ensemble.

    Attributes:
        inspector: The model.
        centre: Its usual score of good images.
        spread: How much that varies; scores are told in units of it.
        log_odds: Scores are probabilities, and centre and spread are of their log-odds.
    """

    inspector: Inspector
    centre: float = 0.0
    spread: float = 1.0
    log_odds: bool = False

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (np.isfinite(self.centre) and np.isfinite(self.spread) and self.spread > 0):
            raise ValueError(f"centre {self.centre}, spread {self.spread}: give a positive spread")

    def told(self, score: float) -> float:
        """Return a score, or a threshold, on the scale of all members; infinite ones stay so."""
        if math.isinf(score):
            return score
        value = float(log_odds(score)) if self.log_odds else score
        return (value - self.centre) / self.spread


class EnsembleInspector:
    """Judges by the mean of all members over all views.

    Args:
        members: The models.
        thresholds: Of the mean score; the mean of the members' own, in their units, if None.
        positions: Of the eight positions of an image, 1 to 8: as it is, mirrored, upside down,
            both, and the same turned by a right angle.
        exposures: Factors of the gray values.
    """

    def __init__(
        self,
        members: Sequence[Member],
        thresholds: Thresholds | None = None,
        *,
        positions: int = USUAL_POSITIONS,
        exposures: Sequence[float] = (1.0,),
    ) -> None:
        if not members:
            raise ValueError("an ensemble of no models; give at least one")
        if not 1 <= positions <= POSITIONS:
            raise ValueError(f"{positions} positions; an image has 1 to {POSITIONS}")
        if not exposures or not all(np.isfinite(e) and e > 0 for e in exposures):
            raise ValueError(f"exposures {tuple(exposures)}; give positive factors")
        self._members = tuple(members)
        self._views = [(p, float(e)) for p in range(positions) for e in exposures]
        self.thresholds = thresholds or _mean_thresholds(self._members)
        self.bits = self._members[0].inspector.bits
        self.digest = self._digest()

    def score(self, pixels: Pixels) -> float:
        """Return the mean score alone."""
        return self.judge(pixels).score

    def judge(self, pixels: Pixels) -> Judgement:
        """Judge uint8 [h, w] or [h, w, 3]."""
        height, width = pixels.shape[:2]
        total, heat = 0.0, np.zeros((height, width), np.float32)
        kinds: defaultdict[str, float] = defaultdict(float)
        share = 1.0 / (len(self._views) * len(self._members))
        for position, exposure in self._views:
            view = np.ascontiguousarray(turned(_exposed(pixels, exposure), position))
            for member in self._members:
                said = member.inspector.judge(view)
                total += share * member.told(said.score)
                heat += np.float32(share) * turned_back(np.asarray(said.heat), position)
                for kind, probability in said.kinds.items():
                    kinds[kind] += share * probability
        said = Judgement(total, heat, self.thresholds.verdict(total), dict(kinds))
        return replace(said, boxes=boxes_of_heat(heat, said.kind))

    def _digest(self) -> str:
        """Return a digest of everything that the verdict depends on."""
        parts = [
            f"{m.inspector.digest} {m.centre!r} {m.spread!r} {m.log_odds}" for m in self._members
        ]
        parts += [repr(self._views), repr(self.thresholds)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def calibrated(inspector: Inspector, good: Sequence[Pixels]) -> Member:
    """Return a member with centre and spread (median, scaled MAD) over known good images.

    Scores that all lie from 0 to 1 are taken for probabilities.

    Raises:
        ValueError: With fewer than 5 images.
    """
    if len(good) < 5:
        raise ValueError(f"{len(good)} good images; give at least 5 to calibrate a model by")
    scores = np.array([inspector.judge(pixels).score for pixels in good])
    shares = bool(((scores >= 0) & (scores <= 1)).all())
    scores = log_odds(scores) if shares else scores
    centre = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - centre)))
    return Member(inspector, centre, max(spread, 1e-6), shares)


def turned(pixels: Pixels, position: int) -> Pixels:
    """Return an image in one of its eight positions, those without a right angle first."""
    turns, mirrored = _TURNS[position]
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def turned_back(heat: Heat, position: int) -> Heat:
    """Return the heat map of a turned image as that of the image."""
    turns, mirrored = _TURNS[position]
    back = np.rot90(heat, -turns)
    return back[:, ::-1] if mirrored else back


def log_odds(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the log-odds of probabilities; those within a millionth of 0 or 1 count as that."""
    share = np.clip(np.asarray(scores, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(share) - np.log1p(-share))


def _exposed(pixels: Pixels, exposure: float) -> Pixels:
    if exposure == 1.0:
        return pixels
    values = np.rint(pixels.astype(np.float32) * np.float32(exposure))
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _mean_thresholds(members: Sequence[Member]) -> Thresholds:
    both = [(m, m.inspector.thresholds) for m in members]
    own = [(m.told(limits.ok_below), m.told(limits.ng_from)) for m, limits in both]
    low, high = np.mean(own, axis=0)
    return Thresholds(float(low), float(high))
