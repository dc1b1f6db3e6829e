"""Evaluation during a run: how often, what is good, and when it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Evaluate = Callable[[nn.Module], float]
"""Returns the figure by which a model is judged; it is called in evaluation mode, without grad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """When a model is evaluated, and what follows from it.

    Attributes:
        every: Steps between two evaluations; 0 for the last step alone.
        goal: Whether a low (``min``) or a high (``max``) figure is good.
        patience: Evaluations in a row without progress that end the run; 0 never does.
        progress: How much better than the best one has to be, to count as progress.
    """

    every: int = 0
    goal: Literal["min", "max"] = "min"
    patience: int = 0
    progress: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.every < 0 or self.patience < 0 or self.progress < 0:
            raise ValueError("evaluation.every, patience and progress must not be negative")
        if self.patience and not self.every:
            raise ValueError("evaluation.patience needs evaluation.every, the steps between two")
        if self.goal not in {"min", "max"}:
            raise ValueError(f"evaluation.goal is {self.goal!r}; take 'min' or 'max'")


class Evaluation:
    """Keeps the figures of a run.

    Attributes:
        best: Best figure so far, None before the first.
        best_step: Steps finished by then.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = config
        self.best: float | None = None
        self.best_step = 0
        self._without_progress = 0

    def note(self, figure: float, step: int) -> None:
        """Note a figure; one that is not finite never is the best."""
        gain = math.inf
        if self.best is not None:
            gain = self.best - figure if self.config.goal == "min" else figure - self.best
        if math.isfinite(figure) and gain > self.config.progress:
            self.best, self.best_step, self._without_progress = figure, step, 0
        else:
            self._without_progress += 1

    @property
    def out_of_patience(self) -> str:
        """Since when there was no progress, "" while patience lasts."""
        lasts = not self.config.patience or self._without_progress < self.config.patience
        return "" if lasts else f"no progress since step {self.best_step}"

    def state_dict(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "without_progress": self._without_progress,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved figures."""
        self.best = state["best"]
        self.best_step = int(state["best_step"])
        self._without_progress = int(state["without_progress"])
