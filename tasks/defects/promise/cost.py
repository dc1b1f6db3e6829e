"""What judging costs: over thresholds, at its cheapest under a promise, with intervals by part.

Of one image drawn at random from a random part: a defective one that passes costs an escape, a good
one that is rejected a false reject, every one in between a review; right verdicts cost nothing.
The cost is a sum of one term of ``ok_below`` and one of ``ng_from``, so the cheapest pair is found
exactly. It is chosen within the promise (below its ``ok_below``, above its ``ng_from``), which
holds for every such pair at once and so is not spoilt by the choice. The cost itself is that of the
parts it was chosen by, and a little too kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.defects.judgement import Thresholds
from tasks.defects.promise.bounds import check_share
from tasks.defects.promise.parts import Floats, Scored

POINTS = 200


@dataclass(frozen=True, slots=True)
class Costs:
    """What errors cost, in any one currency.

    Attributes:
        escape: A defective image that passes as OK.
        false_reject: A good one rejected as NG.
        review: One that a person looks at.
    """

    escape: float
    false_reject: float
    review: float

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        each = (self.escape, self.false_reject, self.review)
        if not all(np.isfinite(each)) or min(each) < 0 or max(each) == 0:
            raise ValueError(f"costs {each}; give numbers of at least 0, one of them more")


@dataclass(frozen=True, slots=True, eq=False)
class CostCurve:
    """Cost of one image over a single threshold, without review.

    Attributes:
        at: float64 [points] thresholds, rising; the last lies above all scores.
        cost: float64 [points].
        low: float64 [points] lower limit, of each point alone.
        high: float64 [points] upper limit.
    """

    at: Floats
    cost: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A pair of thresholds and what it costs per image.

    Attributes:
        thresholds: Where the verdicts part.
        cost: Expected.
        low: Lower limit, of this pair, by bootstrap of parts.
        high: Upper limit.
        review: Share that people look at.
    """

    thresholds: Thresholds
    cost: float
    low: float
    high: float
    review: float


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """Costs on scored parts.

    Attributes:
        ng: Defective images, not seen by the model.
        ok: Good images, likewise.
        costs: What errors cost.
        prevalence: Share of defective parts where the thresholds will be used.
        draws: Of the bootstrap.
        confidence: Of its percentile intervals.
        seed: Of it.
    """

    ng: Scored
    ok: Scored
    costs: Costs
    prevalence: float
    draws: int = 500
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        check_share("prevalence", self.prevalence)
        if not len(self.ng) or not len(self.ok):
            raise ValueError("a cost needs both defective and good images; label some of each")

    def curve(self, points: int = POINTS) -> CostCurve:
        """Return the cost over a single threshold, at no more than so many of the scores."""
        both = np.unique(np.concatenate([self.ng.scores, self.ok.scores]))
        places = np.linspace(0, len(both) - 1, min(points, len(both))).astype(int)
        at = np.append(both[places], np.nextafter(both[-1], np.inf))
        missed, rejected = self._drawn(self.ng, at), 1.0 - self._drawn(self.ok, at)
        share, costs = self.prevalence, self.costs
        cost = share * costs.escape * missed + (1 - share) * costs.false_reject * rejected
        return CostCurve(at, cost[0], *self._limits(cost[1:]))

    def cheapest(self, within: Thresholds | None = None) -> OperatingPoint:
        """Return the cheapest thresholds; within a promise, if one is given.

        Args:
            within: Thresholds of the promise; ``ok_below`` may only fall, ``ng_from`` only rise.
        """
        both = np.unique(np.concatenate([self.ng.scores, self.ok.scores]))
        at = np.concatenate([[-np.inf], both, [np.nextafter(both[-1], np.inf), np.inf]])
        if within is not None:
            at = np.union1d(at, [within.ok_below, within.ng_from])
        missed, passed = _below(self.ng, at), _below(self.ok, at)
        share, costs = self.prevalence, self.costs
        lower = share * (costs.escape - costs.review) * missed
        lower = lower - (1 - share) * costs.review * passed
        upper = share * costs.review * missed
        upper = upper + (1 - share) * (costs.review * passed + costs.false_reject * (1 - passed))
        if within is not None:
            lower = np.where(at <= within.ok_below, lower, np.inf)
            upper = np.where(at >= within.ng_from, upper, np.inf)
        # The cheapest lower threshold up to each place; equal ones: the lowest passes least.
        best = np.minimum.accumulate(lower)
        ng_place = int(np.argmin(best + upper))
        ok_place = int(np.argmin(lower[: ng_place + 1]))
        return self.point(Thresholds(float(at[ok_place]), float(at[ng_place])))

    def point(self, thresholds: Thresholds) -> OperatingPoint:
        """Return what given thresholds cost."""
        at = np.array([thresholds.ok_below, thresholds.ng_from])
        ng, ok = self._drawn(self.ng, at), self._drawn(self.ok, at)
        share, costs = self.prevalence, self.costs
        review = share * (ng[:, 1] - ng[:, 0]) + (1 - share) * (ok[:, 1] - ok[:, 0])
        cost = share * costs.escape * ng[:, 0] + costs.review * review
        cost = cost + (1 - share) * costs.false_reject * (1.0 - ok[:, 1])
        low, high = self._limits(cost[1:, None])
        return OperatingPoint(
            thresholds, float(cost[0]), float(low[0]), float(high[0]), float(review[0])
        )

    def _drawn(self, images: Scored, at: Floats) -> Floats:
        """Return float64 [1 + draws, points] shares below, of the parts and of draws of them."""
        places, parts = images.places()
        own = np.zeros((parts, len(at)))
        np.add.at(own, places, (images.scores[:, None] < at).astype(np.float64))
        own /= np.bincount(places, minlength=parts)[:, None]
        rng = np.random.default_rng((self.seed, int(images is self.ok)))  # sides apart
        even = np.full(parts, 1 / parts)
        return np.vstack(
            [own.mean(0), *(rng.multinomial(parts, even) @ own / parts for _ in range(self.draws))]
        )

    def _limits(self, drawn: Floats) -> tuple[Floats, Floats]:
        tail = (1.0 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
        return low, high


def _below(images: Scored, at: Floats) -> Floats:
    """Return float64 [points] the share below, every part counting as one."""
    places, parts = images.places()
    weights = 1.0 / (parts * np.bincount(places, minlength=parts)[places])
    order = np.argsort(images.scores, kind="stable")
    rising = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(rising[np.searchsorted(images.scores[order], at)])
