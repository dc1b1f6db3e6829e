"""Asynchronous successive halving: which trials may train on.

Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht and Talwalkar, "A system for massively parallel
hyperparameter tuning", MLSys 2020: rungs at r, r·η, r·η² ... steps; at each the best 1/η of those
that have come so far go on. Nobody waits for others: a trial is judged when it arrives, and ends or
goes on at once (the stopping form; a trial that ended is not taken up again).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AshaConfig:
    """When trials are compared, and how many of them go on.

    Attributes:
        first: Steps before the first rung; the curve must say something by then.
        reduction: One in so many goes on (η); also the factor between two rungs.
        last: Steps of a whole trial; no rung lies there, or beyond.
        brackets: Trials take turns in so many brackets; each passes over one rung more than the
            one before (Hyperband's hedge against curves that cross late). 1: all are judged alike.
    """

    first: int
    last: int
    reduction: int = 3
    brackets: int = 1

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.first < 1 or self.reduction < 2:
            raise ValueError(
                f"asha.first must be at least 1 and asha.reduction at least 2, got {self.first} "
                f"and {self.reduction}"
            )
        if self.last <= self.first:
            raise ValueError(
                f"asha.last ({self.last}, steps of a whole trial) must be above asha.first "
                f"({self.first}), or no trial ever ends early; leave asha out for that"
            )
        most = len(self.rungs()) + 1
        if not 1 <= self.brackets <= most:
            raise ValueError(
                f"asha.brackets is {self.brackets}; with {most - 1} rungs take 1 to {most}"
            )

    def rungs(self) -> list[int]:
        """Return the steps of all rungs, in order.

        >>> AshaConfig(first=4, last=100).rungs()
        [4, 12, 36]
        """
        found = [self.first]
        while found[-1] * self.reduction < self.last:
            found.append(found[-1] * self.reduction)
        return found

    def rung_of(self, number: int, before: int, now: int) -> int | None:
        """Return the highest rung of a trial after ``before`` and up to ``now`` steps, if any.

        Args:
            number: Number of the trial, which decides its bracket.
            before: Steps at its last report, 0 without one.
            now: Steps now.
        """
        own = self.rungs()[number % self.brackets :]
        passed = [rung for rung in own if before < rung <= now]
        return passed[-1] if passed else None


def may_go_on(value: float, others: Collection[float], reduction: int) -> bool:
    """Return whether a value is among the best 1/η of its rung.

    Args:
        value: What has just come; low is good. NaN and infinity never go on.
        others: What came before.
        reduction: η. While fewer have come, only one better than all of them goes on, so the first
            does.

    >>> may_go_on(0.2, [0.1, 0.3, 0.4, 0.5, 0.6], 3)
    True
    """
    if not math.isfinite(value):
        return False
    places = max((len(others) + 1) // reduction, 1)
    return sum(other < value for other in others) < places
