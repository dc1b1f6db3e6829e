"""Waiting longer after every failure, and not in step with others (exponential, full jitter).

Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """The next pause.

    Attributes:
        first: Longest pause after the first failure, seconds.
        longest: Longest pause of all, seconds.
        failures: Failures since the last success.
        random: Draws the pauses.
    """

    first: float = 0.2
    longest: float = 30.0
    failures: int = 0
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 < self.first <= self.longest:
            raise ValueError(f"pauses {self.first}, {self.longest}: give 0 < first <= longest")

    def next(self, at_least: float = 0.0) -> float:
        """Count a failure; returns the seconds to wait, no fewer than asked for."""
        bound = min(self.longest, self.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return max(at_least, self.random.uniform(0, bound))

    def reset(self) -> None:
        """Note a success."""
        self.failures = 0
