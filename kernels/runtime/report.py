"""What came of a run."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.runtime.cost import Cost


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Attributes:
        steps: Steps done by this call; 0 when the run had finished before.
        finished: Steps the model has seen in all.
        stopped: Why it ended before its last step; "" when it did not.
        best: Best figure of the evaluation, None without one.
        best_step: Steps finished by then.
        skipped: Steps without an update.
        cost: Seconds, energy and money of this call.
        checkpoint_seconds: Wall seconds of it for which checkpoints held it up.
        precision: Format in which the model computed.
    """

    steps: int
    finished: int
    stopped: str
    best: float | None
    best_step: int
    skipped: int
    cost: Cost
    checkpoint_seconds: float
    precision: str
