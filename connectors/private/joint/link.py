"""Networks as delay: what a session would take between two cities, measured on one machine.

A frame leaves when the frames before it have left, takes its bytes at the given rate and then the
latency. It is held back by that and then sent over loopback, whose own time comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """One direction of a network.

    Attributes:
        bits_per_s: Rate; 0: no limit.
        latency_s: One-way delay.
    """

    bits_per_s: float = 0.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            ValueError: On a negative number.
        """
        if self.bits_per_s < 0 or self.latency_s < 0:
            raise ValueError("bits_per_s and latency_s are at least 0")

    def left(self, now: float, free: float, size: int) -> float:
        """Return when a frame of so many bytes has left, the link being free from ``free`` on."""
        seconds = 8 * size / self.bits_per_s if self.bits_per_s else 0.0
        return max(now, free) + seconds


LINKS = {"none": Link(), "lan": Link(10e9, 0.2e-3), "wan": Link(100e6, 40e-3)}
"""Name -> link; latencies are taken one way, which is the harsher reading."""
