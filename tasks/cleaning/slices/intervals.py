"""Intervals and tests of a difference that ask "by more than it matters?", not "not equal?".

Rates have exact limits (Clopper and Pearson, Biometrika 1934), which square-and-add makes into
limits of a difference (Newcombe, Statistics in Medicine 1998, method 10, with exact limits in
place of Wilson's, whose tails are too light where few events are expected and many slices are
looked at). Means have Welch's t, and neither side is taken to be less variable than both together:
a slice of nothing but zeros has seen too little, not proven that nothing varies there.

A test here is against a *floor*: its null is any difference up to the floor, so that a million rows
do not make a difference of no consequence an alarm. Rows are taken to be independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEAST_LOG_TAIL = -690.0  # e to that is the least tail that is told from none
STAGES = (np.log(0.5), np.log(1e-3), np.log(1e-12), LEAST_LOG_TAIL)
HALVINGS = 16  # of the stage that holds a p-value
NOISE = 1e-12  # of sums that are taken from each other


@dataclass(frozen=True, slots=True)
class Sums:
    """What is known of the scores on one side of each comparison.

    Attributes:
        n: float64 [comparisons] rows.
        total: float64 [comparisons] sum of their scores.
        squares: float64 [comparisons] sum of their squares.
    """

    n: Floats
    total: Floats
    squares: Floats

    def __sub__(self, other: Sums) -> Sums:
        """Return the sums of the rows that are here and not there."""
        left = (
            np.where(np.abs(a - b) > NOISE * np.abs(a), a - b, 0.0)
            for a, b in ((self.total, other.total), (self.squares, other.squares))
        )
        return Sums(self.n - other.n, *left)

    def __getitem__(self, chosen: NDArray[np.int64] | Bools) -> Sums:
        """Return the sums of chosen comparisons."""
        return Sums(self.n[chosen], self.total[chosen], self.squares[chosen])

    @property
    def mean(self) -> Floats:
        """Mean score, NaN where there are no rows."""
        return np.where(self.n > 0, self.total / np.maximum(self.n, 1), np.nan)

    @property
    def variance(self) -> Floats:
        """Variance of the scores, 0 for fewer than two rows."""
        n = np.maximum(self.n, 1)
        apart = np.maximum(self.squares - self.total * self.total / n, 0.0)
        return np.where(self.n > 1, apart / np.maximum(self.n - 1, 1), 0.0)


def exact_rate(hits: Floats, n: Floats, tail: Floats | float) -> tuple[Floats, Floats]:
    """Return Clopper and Pearson's limits of a rate with ``tail`` beyond each of them.

    >>> low, high = exact_rate(np.array([0.0]), np.array([10.0]), 0.025)
    >>> low.item(), round(high.item(), 3)
    (0.0, 0.308)
    """
    # The upper limit from the other side: 1 - tail would lose the digits of small tails.
    return exact_low(hits, n, tail), 1 - exact_low(n - hits, n, tail)


def exact_low(hits: Floats, n: Floats, tail: Floats | float) -> Floats:
    """Return the lower one of :func:`exact_rate`."""
    from scipy.special import betaincinv

    hits = np.round(hits)  # sums of ones, taken from each other
    tail = np.maximum(tail, np.exp(LEAST_LOG_TAIL))
    some = hits > 0
    low = betaincinv(np.where(some, hits, 1.0), np.maximum(n - hits, 0.0) + 1, tail)
    return np.where(some, low, 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Slices against what they are compared with.

    Attributes:
        here: The slices.
        there: The other side of each.
        rate: Whether all scores are 0 or 1.
    """

    here: Sums
    there: Sums
    rate: bool

    @property
    def difference(self) -> Floats:
        """Mean here less mean there."""
        return self.here.mean - self.there.mean

    def limits(self, tail: Floats | float) -> tuple[Floats, Floats]:
        """Return limits of the difference with at most ``tail`` beyond each of them."""
        return self.lower(tail), -Comparison(self.there, self.here, self.rate).lower(tail)

    def lower(self, tail: Floats | float) -> Floats:
        """Return the lower limit of the difference."""
        difference = np.nan_to_num(self.difference)
        if self.rate:
            here, there = self.here, self.there
            down = np.nan_to_num(here.mean) - exact_low(here.total, here.n, tail)
            up = 1 - exact_low(there.n - there.total, there.n, tail) - np.nan_to_num(there.mean)
            reach = np.hypot(down, up)
        else:
            from scipy.stats import t

            error, freedom = self._error()
            reach = t.isf(tail, freedom) * error
        empty = (self.here.n < 2) | (self.there.n < 2)
        return np.where(empty, -np.inf, difference - reach)

    def own_limits(self, tail: float) -> tuple[Floats, Floats]:
        """Return limits of the mean here, by t, or exact ones of a rate."""
        if self.rate:
            return exact_rate(self.here.total, self.here.n, tail)
        from scipy.stats import t

        n = np.maximum(self.here.n, 1)
        error = np.sqrt(np.maximum(self.here.variance, self._together.variance) / n)
        half = np.where(self.here.n < 2, np.inf, t.isf(tail, np.maximum(n - 1, 1)) * error)
        return self.here.mean - half, self.here.mean + half

    def above(self, floor: float) -> Floats:
        """Return one-sided p-values of "the difference is at most ``floor``".

        The least tail at which the lower limit lies above the floor, so that test and interval
        never contradict each other.
        """
        difference = self.difference
        empty = (self.here.n < 2) | (self.there.n < 2) | ~(difference > floor)
        if not self.rate:
            from scipy.stats import t

            error, freedom = self._error()
            with np.errstate(divide="ignore", invalid="ignore"):
                tail = t.sf((difference - floor) / error, freedom)
            return np.where(empty, 1.0, tail)
        p = np.ones(len(difference))
        rows = np.flatnonzero(~empty)
        part = Comparison(self.here[rows], self.there[rows], self.rate)
        outside, inside = np.full(len(rows), STAGES[0]), np.full(len(rows), STAGES[1])
        for stage, deeper in pairwise(STAGES[1:]):
            clear = part.lower(np.exp(inside)) > floor
            outside, inside = np.where(clear, stage, outside), np.where(clear, deeper, inside)
        for _ in range(HALVINGS if len(rows) else 0):
            middle = (inside + outside) / 2
            clear = part.lower(np.exp(middle)) > floor
            outside, inside = np.where(clear, middle, outside), np.where(clear, inside, middle)
        p[rows] = np.exp(outside)
        return p

    def below(self, floor: float) -> Floats:
        """Return one-sided p-values of "the difference is at least -``floor``"."""
        return Comparison(self.there, self.here, self.rate).above(floor)

    @property
    def _together(self) -> Sums:
        here, there = self.here, self.there
        return Sums(here.n + there.n, here.total + there.total, here.squares + there.squares)

    def _error(self) -> tuple[Floats, Floats]:
        """Return standard errors of the difference and Welch's degrees of freedom."""
        n, m = np.maximum(self.here.n, 1), np.maximum(self.there.n, 1)
        both = self._together.variance
        a = np.maximum(self.here.variance, both) / n
        b = np.maximum(self.there.variance, both) / m
        shares = a * a / np.maximum(n - 1, 1) + b * b / np.maximum(m - 1, 1)
        freedom = np.where(shares > 0, (a + b) ** 2 / np.where(shares > 0, shares, 1.0), 1.0)
        return np.sqrt(a + b), np.maximum(freedom, 1.0)


def adjusted(p: Floats, alpha: float) -> tuple[Floats, float]:
    """Return Benjamini and Hochberg's adjusted p-values, and the level of the intervals with them.

    With R of m tests rejected, intervals with 1 - alpha R / m are off for at most a share alpha of
    the rejected (Benjamini and Yekutieli, JASA 2005), and exclude the null of just those.

    >>> q, level = adjusted(np.array([0.001, 0.02, 0.9, 0.04]), 0.05)
    >>> [round(x, 4) for x in q.tolist()], level
    ([0.004, 0.04, 0.9, 0.0533], 0.025)
    """
    m = len(p)
    if m == 0:
        return p, alpha
    order = np.argsort(p, kind="stable")
    scaled = p[order] * m / np.arange(1, m + 1)
    q = np.empty(m)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q, alpha * max(int((q <= alpha).sum()), 1) / m
