"""What the loop tells the outside after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Figures of one optimizer step.

    Attributes:
        step: 1-based count of finished steps.
        steps: Steps of the whole run.
        loss: Mean loss per valid item.
        learning_rate: Rate the step used.
        grad_norm: Global L2 norm of the gradients before clipping.
        items: Valid items of the step.
        items_per_second: Throughput of the step, batch building included.
        stall_seconds: Seconds the step waited for its batches.
        skipped: The step had no update, for something was not finite.
        loss_scale: Scale of the loss in fp16, else 1.
        metric: Figure of the evaluation after this step, if there was one.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    items: int
    items_per_second: float
    stall_seconds: float = 0.0
    skipped: bool = False
    loss_scale: float = 1.0
    metric: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the figures that a tracker draws over the step."""
        found = {
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "items_per_second": self.items_per_second,
            "stall_seconds": self.stall_seconds,
        }
        if self.loss_scale != 1.0:
            found["loss_scale"] = self.loss_scale
        if self.metric is not None:
            found["metric"] = self.metric
        return found


class StopRun(Exception):  # noqa: N818 - no error: a wish
    """Raised by a callback to end the run after this step; the message becomes its reason.

    Of several processes the first one alone has callbacks: there the run ends at the next
    evaluation, where all can learn of it.
    """


class Callback(Protocol):
    """Listens to a run. It must not draw random numbers or touch the model."""

    def on_step(self, metrics: StepMetrics) -> None:
        """Receive the figures of a finished step.

        Raises:
            StopRun: To end the run.
        """


def tell(callbacks: Sequence[Callback], metrics: StepMetrics, wish: str = "") -> str:
    """Tell all; return why the first of those that want to ends the run, else ``wish``."""
    for callback in callbacks:
        try:
            callback.on_step(metrics)
        except StopRun as stop:
            wish = wish or str(stop) or "ended by a callback"
    return wish


Listen = Callable[[str], Sequence[Callback]]
"""Gives the listeners of a named training loop, where a job trains several networks."""


def nobody(loop: str) -> Sequence[Callback]:
    """Listen to nothing."""
    del loop
    return ()


class History:
    """Keeps every step's figures in memory.

    Attributes:
        steps: Figures in order.
    """

    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []

    def on_step(self, metrics: StepMetrics) -> None:
        """Append the figures."""
        self.steps.append(metrics)
