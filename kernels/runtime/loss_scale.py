"""Dynamic loss scaling for fp16: small gradients are lifted into its range."""

from __future__ import annotations

from typing import Any


class LossScale:
    """Dynamic loss scaling: halved at every overflow, doubled after a long time without.

    Attributes:
        value: Factor of the loss, a power of two.
    """

    def __init__(self, first: float, growth_steps: int) -> None:
        self.value = first
        self._growth_steps = growth_steps
        self._good = 0

    def update(self, *, overflow: bool) -> None:
        """Note a step; an overflow means that it was not applied."""
        if overflow:
            self.value, self._good = max(self.value / 2, 1.0), 0
            return
        self._good += 1
        if self._good == self._growth_steps:
            self.value, self._good = self.value * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and the steps since it last moved."""
        return {"value": self.value, "good": self._good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.value, self._good = float(state["value"]), int(state["good"])
