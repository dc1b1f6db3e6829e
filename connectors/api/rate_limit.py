"""A token bucket per client: a steady rate with room for bursts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Lets ``rate`` units per second through, ``burst`` at once after a rest.

    Attributes:
        rate: Units per second.
        burst: Most units at once.
        level: Units left.
        at: Monotonic second of the last look.
    """

    rate: float
    burst: float
    level: float = -1.0
    at: float = 0.0

    def __post_init__(self) -> None:
        """Start full."""
        if self.rate <= 0 or self.burst <= 0:
            raise ValueError("rate and burst must be positive")
        if self.level < 0:
            self.level = self.burst

    def take(self, units: float, now: float) -> float:
        """Take units; returns 0, or the seconds after which to come again.

        More than ``burst`` units at once are let through when the bucket is full, and put it in
        debt: they could never pass otherwise.
        """
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level >= min(units, self.burst):
            self.level -= units
            return 0.0
        return (min(units, self.burst) - self.level) / self.rate


class RateLimiter:
    """One bucket per client name."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, max(burst, rate)
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, name: str, units: float, now: float) -> float:
        """Take units of a client; returns 0, or the seconds after which to come again."""
        bucket = self._buckets.get(name)
        if bucket is None:
            # Names are those of configured tokens, so there are never many buckets.
            bucket = self._buckets[name] = TokenBucket(self._rate, self._burst, at=now)
        return bucket.take(units, now)
