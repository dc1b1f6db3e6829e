"""How surprising a large value is among mostly ordinary ones, some of which may be faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Floats

LOW, HIGH = 0.5, 0.9
"""Quantiles that fix the tail: up to a tenth of the values may be faults."""
SHAPES = (0.5, 2.0)  # from heavier than exponential to normal


@dataclass(frozen=True, slots=True)
class Tail:
    """A Weibull tail through two quantiles: P(Z > z) = exp(-(z / scale) ** shape).

    Attributes:
        scale: Its scale; 0 where half the values are zero.
        shape: 2 for normal tails, 1 for exponential ones, less for heavier ones.
        count: Values that it was taken from.
    """

    scale: float
    shape: float
    count: int

    def expected(self, value: Floats) -> Floats:
        """Return how many of ``count`` ordinary values would be as large."""
        if self.scale == 0.0:
            return np.where(value > 0, 0.0, float(self.count))
        return np.asarray(self.count * np.exp(-((value / self.scale) ** self.shape)))

    def bound(self, expected: float) -> float:
        """Return the value that ``expected`` of ``count`` ordinary ones exceed."""
        if self.count == 0:
            return 0.0
        return float(self.scale * max(np.log(self.count / expected), 0.0) ** (1.0 / self.shape))


def tail_of(values: Floats) -> Tail:
    """Fit a tail to values from 0 up, most of them ordinary; zeros are left out."""
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) < 20:
        return Tail(0.0, 1.0, len(positive))
    low, high = np.quantile(positive, [LOW, HIGH])
    if low <= 0.0:
        return Tail(0.0, 1.0, len(positive))
    logs = np.log([-np.log1p(-LOW), -np.log1p(-HIGH)])
    steep = (logs[1] - logs[0]) / max(float(np.log(high / low)), 1e-9)
    shape = float(np.clip(steep, *SHAPES))
    scale = float(high / (-np.log1p(-HIGH)) ** (1.0 / shape))
    return Tail(scale, shape, len(positive))
