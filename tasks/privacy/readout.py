"""From decrypted scores to probabilities and decisions: the owner's last step, in the clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

Kind = Literal["probability", "value", "class"]
KINDS = ("probability", "value", "class")
"""What scores mean: log-odds of one event, a number each, or evidence for each class."""


@dataclass(frozen=True)
class Readout:
    """What to make of scores.

    Attributes:
        kind: What they mean.
        a: Of log-odds z: calibrated log-odds are ``a ln p - b ln(1 - p) + c`` with
            ``p = sigmoid(max(z, floor))`` (beta calibration; 1, 1, 0 changes nothing).
        b: See ``a``.
        c: See ``a``.
        floor: See ``a``; None: none.
        thresholds: Name of a band -> probability from which it holds, rising.
    """

    kind: Kind = "probability"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    floor: float | None = None
    thresholds: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check what was read.

        Raises:
            ValueError: On an unknown kind, a map that reverses the order, or falling thresholds.
        """
        if self.kind not in KINDS:
            raise ValueError(f"readout.kind is one of {KINDS}, not {self.kind!r}")
        if not (self.a > 0 and self.b > 0 and np.isfinite([self.a, self.b, self.c]).all()):
            raise ValueError("readout.a and readout.b must be positive, and all finite")
        limits = [limit for _, limit in self.thresholds]
        if limits != sorted(limits) or not all(0 <= limit <= 1 for limit in limits):
            raise ValueError("readout.thresholds must rise within 0 .. 1")

    def outcome(self, scores: Reals) -> Reals:
        """Return probabilities [n, O], or the scores where they are values; NaN stays."""
        if self.kind == "value":
            return scores
        if self.kind == "class":
            shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares: Reals = shifted / shifted.sum(axis=1, keepdims=True)
            return shares
        z = scores if self.floor is None else np.maximum(scores, self.floor)
        with np.errstate(invalid="ignore"):
            log_odds = self.c - self.a * np.logaddexp(0.0, -z) + self.b * np.logaddexp(0.0, z)
        probability: Reals = 0.5 * (1.0 + np.tanh(0.5 * log_odds))
        return probability

    def bands(self, probabilities: Reals) -> list[str]:
        """Return the highest band that each probability [n] reaches; empty below all."""
        limits = np.array([limit for _, limit in self.thresholds])
        names = ["", *(name for name, _ in self.thresholds)]
        return [names[i] for i in np.searchsorted(limits, probabilities, side="right")]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Readout:
        """Rebuild from `to_dict`."""
        thresholds = tuple((str(name), float(limit)) for name, limit in data["thresholds"])
        return cls(**{**data, "thresholds": thresholds})
