"""The drift switch: how habits and the fraud mix move while the months pass."""

from __future__ import annotations

from dataclasses import dataclass, fields

PEAK_SECOND = 43_200
"""Mean second of the day of a card payment without drift (noon)."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds on one day; the defaults are the world without drift.

    Attributes:
        amount: Factor on every mean amount.
        rate: Factor on every transaction rate.
        peak: Mean second of the day at which cards are used.
        bad_terminals: Factor on newly compromised terminals per day (cards, scenario 2).
        bad_cards: Factor on newly compromised cards per day (cards, scenario 3).
        testers: Share of the full number of card testers at work (cards, scenario 4).
        chains: Weight of chains among ring operations (transfers).
        gathers: Weight of gatherings among ring operations (transfers).
    """

    amount: float = 1.0
    rate: float = 1.0
    peak: float = PEAK_SECOND
    bad_terminals: float = 1.0
    bad_cards: float = 1.0
    testers: float = 0.0
    chains: float = 1.0
    gathers: float = 1.0


STEADY = Conditions()


@dataclass(frozen=True, slots=True)
class Drift:
    """A slow change of the world; growths are shares per month of 30 days, compounded.

    Up to ``start_day`` nothing moves: those days follow the distribution without drift. From then
    on every quantity moves a little each day, for ``months`` months, after which it stays.

    Attributes:
        start_day: First day (counted from 0) after which habits begin to move.
        months: Months for which the movement lasts.
        amount_growth: Growth of mean amounts. The limit of scenario 1 does not move with it, so
            that large-amount frauds become more frequent, and every transaction above the limit
            is still a fraud.
        rate_growth: Growth of transaction rates.
        later_hours: Hours per month by which the daily peak of card payments moves later.
        bad_terminal_growth: Growth of newly compromised terminals: negative, scenario 2 dwindles.
        bad_card_growth: Growth of newly compromised cards: positive, scenario 3 grows.
        tester_months: Months after ``start_day`` at which a new fraud appears, card testing with
            small amounts (scenario 4). It reaches its full size one month later.
        chain_growth: Growth of the weight of chains among ring operations.
        gather_growth: Growth of the weight of gatherings among ring operations.
    """

    start_day: int = 30
    months: float = 12.0
    amount_growth: float = 0.02
    rate_growth: float = 0.02
    later_hours: float = 0.5
    bad_terminal_growth: float = -0.20
    bad_card_growth: float = 0.15
    tester_months: float = 1.0
    chain_growth: float = -0.25
    gather_growth: float = 0.25

    def __post_init__(self) -> None:
        """Reject movements that leave the possible, naming field and fix."""
        for name in ("start_day", "months", "tester_months"):
            if getattr(self, name) < 0:
                raise ValueError(f"drift.{name} must be 0 or more, got {getattr(self, name)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_growth") and not -1 < value <= 1:
                raise ValueError(
                    f"drift.{item.name} is a share per month and must lie in (-1, 1], got {value}"
                )
        if abs(self.later_hours * self.months) > 12:
            raise ValueError(
                f"drift.later_hours = {self.later_hours} over {self.months} months moves the daily "
                "peak by more than 12 hours; lower one of the two"
            )

    def at(self, day: int) -> Conditions:
        """Return what holds on ``day`` (counted from 0)."""
        months = min(max(day - self.start_day, 0) / 30, self.months)
        if months == 0:
            return STEADY
        return Conditions(
            amount=(1 + self.amount_growth) ** months,
            rate=(1 + self.rate_growth) ** months,
            peak=PEAK_SECOND + 3600 * self.later_hours * months,
            bad_terminals=(1 + self.bad_terminal_growth) ** months,
            bad_cards=(1 + self.bad_card_growth) ** months,
            testers=min(max(months - self.tester_months, 0.0), 1.0),
            chains=(1 + self.chain_growth) ** months,
            gathers=(1 + self.gather_growth) ** months,
        )


def conditions(drift: Drift | None, day: int) -> Conditions:
    """Return what holds on ``day`` under ``drift`` (None: the steady world)."""
    return STEADY if drift is None else drift.at(day)
