"""How long requests wait before they are handled, and what is left out when that grows.

The event loop handles requests one after the other in rounds; what comes while a round is under way
waits in the buffers of the sockets, where no program sees it, for the next one. So the wait of a
request is about half of the round before plus what this round has done so far. Both are added up
from the time that each request took, a single long one cut to a few times the usual: a moment in
which the machine did something else leaves little work behind and must not turn requests away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum

PERIOD = 0.002
"""Seconds between two beats, the least length of a round. Beats end while nothing is asked: woken
so often, a server that does nothing would take some percent of a core."""

_USUAL = 0.0003
_OUTLIER = 4.0
_MEMORY = 0.05


class Level(IntEnum):
    """What is done for a request, from all to nothing."""

    FULL = 0
    NO_REASONS = 1
    TABULAR = 2
    RULES_ONLY = 3
    REFUSE = 4


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """Shares of the time budget at which something is left out.

    Attributes:
        budget: Seconds within which an answer is due.
        no_reasons: Share of it spent waiting from which reasons are left out.
        tabular: Share from which the head on entity state alone scores.
        rules_only: Share from which only block lists decide.
        refuse: Share from which a request is turned away at once.
    """

    budget: float
    no_reasons: float = 0.4
    tabular: float = 0.6
    rules_only: float = 0.8
    refuse: float = 1.0

    def __post_init__(self) -> None:
        """Check the order."""
        shares = (0.0, self.no_reasons, self.tabular, self.rules_only, self.refuse)
        if self.budget <= 0 or list(shares) != sorted(shares):
            raise ValueError("budget must be positive and the shares must ascend")


class LoadControl:
    """Measures the wait and says what a request gets."""

    def __init__(self, limits: LoadLimits) -> None:
        self.limits = limits
        self._spent = self._before = 0.0
        self._usual = _USUAL
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._bounds = tuple(
            limits.budget * share
            for share in (limits.no_reasons, limits.tabular, limits.rules_only, limits.refuse)
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat from now on whenever something is handled."""
        self._loop = loop

    def stop(self) -> None:
        """Beat no more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def beat(self) -> None:
        """Note that a round of the loop begins."""
        self._before, self._spent = self._spent, 0.0

    def spend(self, seconds: float) -> None:
        """Note that a request was handled in so much time."""
        seconds = min(seconds, _OUTLIER * self._usual)
        self._usual += _MEMORY * (seconds - self._usual)
        self.spend_slice(seconds)

    def spend_slice(self, seconds: float) -> None:
        """Note that a slice of a batch was handled; all of it counts."""
        self._spent += seconds
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(PERIOD, self._tick, self._loop)

    def wait(self) -> float:
        """Return the seconds that a request handled now has waited, typically."""
        return self._before / 2 + self._spent

    def level(self, wait: float) -> Level:
        """Return what a request gets that has waited so long."""
        bounds = self._bounds
        if wait < bounds[0]:
            return Level.FULL
        if wait < bounds[1]:
            return Level.NO_REASONS
        if wait < bounds[2]:
            return Level.TABULAR
        return Level.RULES_ONLY if wait < bounds[3] else Level.REFUSE

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beat()
        waits = self._before > 0
        self._timer = loop.call_later(PERIOD, self._tick, loop) if waits else None
