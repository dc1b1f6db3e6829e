"""Evidence that gathers until it is an alarm, with a bound on how often chance alone alarms.

Several bettors bet against "nothing changed"; what each multiplies its money by has a mean of at
most 1 as long as that is true. Every step one new unit is shared out among them, so all money has a
mean of at most t after t steps. So it reaches ``arl`` by chance within t steps with a chance of at
most t / ``arl``, and after ``arl`` steps or more in the mean: Shiryaev and Roberts' rule as an
e-detector (Shin, Ramdas and Rinaldo, 2022). A little money moves between the bettors all the time,
so that the right one is never poor when something changes (Herbster and Warmuth, Machine Learning
1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

JUMP = 0.01


@dataclass(slots=True)
class Evidence:
    """Money of the bettors.

    Attributes:
        arl: Mean number of steps until a false alarm, at least.
        bettors: How many there are.
        money: Of each.
        reached: All of it at the last alarm.
    """

    arl: float
    bettors: int
    money: list[float] = field(default_factory=list)
    reached: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.arl > 1:
            raise ValueError(f"arl is {self.arl}; give the mean steps to a false alarm, above 1")
        self.arl = float(self.arl)
        self.money = self.money or [0.0] * self.bettors
        if len(self.money) != self.bettors or not all(0 <= one < self.arl for one in self.money):
            raise ValueError("money of a watch is out of its range; learn the watch anew")

    def step(self, factors: Sequence[float]) -> int | None:
        """Bet once.

        Args:
            factors: What each bettor multiplies its money by.

        Returns:
            The richest bettor where this is an alarm, after which all start anew, else None.
        """
        share = 1.0 / self.bettors
        pool = JUMP * (sum(self.money) + 1.0) * share
        self.money = [
            factor * ((1.0 - JUMP) * (own + share) + pool)
            for own, factor in zip(self.money, factors, strict=True)
        ]
        total = sum(self.money)
        if total < self.arl:
            return None
        self.reached = total
        richest = max(range(self.bettors), key=self.money.__getitem__)
        self.money = [0.0] * self.bettors
        return richest
