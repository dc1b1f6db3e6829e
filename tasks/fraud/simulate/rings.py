"""Laundering rings: groups of accounts that pass money on among themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.simulate.drift import Conditions, Drift, conditions
from tasks.fraud.simulate.stream import DAY

MEMBERS = 14
OPERATIONS = 6
WEEK = 7
LAST_START_BEFORE_END = 45
"""A ring starts at least this many days before the end, so that all its operations fit."""


@dataclass(slots=True)
class RingTransfers:
    """Transfers of rings, in the order they were made up.

    Attributes:
        t: Seconds since the origin.
        sender: Account numbers.
        receiver: Account numbers.
        amount: Amounts in major units.
        ring: Ring numbers.
    """

    t: list[int] = field(default_factory=list)
    sender: list[int] = field(default_factory=list)
    receiver: list[int] = field(default_factory=list)
    amount: list[float] = field(default_factory=list)
    ring: list[int] = field(default_factory=list)

    def add(self, t: int, sender: int, receiver: int, amount: float, ring: int) -> None:
        """Append one transfer."""
        self.t.append(t)
        self.sender.append(sender)
        self.receiver.append(receiver)
        self.amount.append(amount)
        self.ring.append(ring)


def draw_rings(
    mean: NDArray[np.float64],
    days: int,
    rings: int,
    drift: Drift | None,
    random: np.random.Generator,
) -> RingTransfers:
    """Make up every transfer of every ring.

    A ring of 14 accounts starts on a day uniform in ``0..days - 46`` and makes six operations, a
    week and up to three days apart, each a chain, a cycle or a gathering with equal chance (under
    drift with the weights of its day).

    Args:
        mean: Mean amount of every account, float64 [accounts], major units.
        days: Days of the run.
        rings: Number of rings.
        drift: Shifts amounts and the mix of operations; None: no shift.
        random: Generator to draw from.
    """
    made = RingTransfers()
    for ring in range(rings):
        members = random.choice(len(mean), MEMBERS, replace=False)
        start = int(random.integers(0, days - LAST_START_BEFORE_END))
        for number in range(OPERATIONS):
            day = start + WEEK * number + int(random.integers(0, 4))
            now = conditions(drift, day)
            weights = np.cumsum([now.chains, 1.0, now.gathers])
            kind = int(np.searchsorted(weights, random.random() * weights[-1], side="right"))
            if kind == 2:
                _gather(made, ring, random.permutation(members)[:8], mean, day, now, random)
            else:
                _pass_on(made, ring, members, mean, day, now, random, cycle=kind == 1)
    return made


def _pass_on(
    made: RingTransfers,
    ring: int,
    members: NDArray[np.int64],
    mean: NDArray[np.float64],
    day: int,
    now: Conditions,
    random: np.random.Generator,
    *,
    cycle: bool,
) -> None:
    """A chain of six accounts, or a cycle of five back to the first."""
    path = random.permutation(members)[: 5 if cycle else 6].tolist()
    if cycle:
        path.append(path[0])
    low, high = (0.95, 0.99) if cycle else (0.93, 0.98)
    amount = mean[path[0]] * now.amount * random.lognormal(0.3, 0.4)
    # like every transfer at a uniform time of its day: midnight sharp would give a ring away
    t = day * DAY + int(random.integers(0, DAY))
    for sender, receiver in pairwise(path):
        made.add(t, sender, receiver, float(amount), ring)
        amount *= random.uniform(low, high)
        t += int(random.integers(3600, 18 * 3600))


def _gather(
    made: RingTransfers,
    ring: int,
    chosen: NDArray[np.int64],
    mean: NDArray[np.float64],
    day: int,
    now: Conditions,
    random: np.random.Generator,
) -> None:
    """Seven accounts send to an eighth within three days."""
    collector, *senders = chosen.tolist()
    for sender in senders:
        amount = mean[sender] * now.amount * random.lognormal(0.0, 0.5)
        t = day * DAY + int(random.integers(0, 3 * DAY))
        made.add(t, sender, collector, float(amount), ring)
