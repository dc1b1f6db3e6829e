"""What becomes of a step whose loss or gradients are not finite: no update, and a decision."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFiniteConfig:
    """What to do about such a step.

    Attributes:
        action: ``raise`` ends the run before the update, ``skip`` goes on with the next batch.
        limit: Skipped steps in a row that end the run all the same.
    """

    action: Literal["raise", "skip"] = "raise"
    limit: int = 10

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.action not in {"raise", "skip"}:
            raise ValueError(f"non_finite.action is {self.action!r}; take 'raise' or 'skip'")
        if self.limit < 1:
            raise ValueError(f"non_finite.limit must be at least 1, got {self.limit}")


class NonFiniteError(RuntimeError):
    """Loss or gradients became NaN or infinite; the model still holds the last good weights.

    Attributes:
        finished: Steps finished by then.
    """

    def __init__(self, message: str, finished: int = 0) -> None:
        super().__init__(message)
        self.finished = finished


class NonFinite:
    """Counts steps that were skipped.

    Attributes:
        skipped: Skipped steps of the run.
        in_a_row: Skipped steps since the last update.
    """

    def __init__(self, config: NonFiniteConfig) -> None:
        self.config = config
        self.skipped = self.in_a_row = 0

    def updated(self) -> None:
        """Note a step that updated the model."""
        self.in_a_row = 0

    def skip(self, step: int, loss: float, norm: float, *, expected: bool) -> None:
        """Note a step without an update.

        Args:
            step: 0-based step.
            loss: Mean loss.
            norm: Norm of the gradients.
            expected: A loss scale that is still being found overflows now and then.

        Raises:
            NonFiniteError: When that is not to be borne.
        """
        self.skipped += 1
        if expected:
            return
        self.in_a_row += 1
        told = f"step {step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}"
        if self.config.action == "raise" or self.in_a_row > self.config.limit:
            again = f", {self.in_a_row} in a row" if self.in_a_row > 1 else ""
            raise NonFiniteError(
                f"{told}{again}; lower the learning rate or look for values that are not finite "
                "in the batch",
                finished=step,
            )
        logger.warning("%s; skipped", told)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = int(state["skipped"]), int(state["in_a_row"])
