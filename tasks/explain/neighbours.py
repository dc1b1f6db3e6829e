"""Known rows that were scored for the same reasons: nearest by their contributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import ExplanationError
from tasks.explain.joined import differences
from tasks.explain.record import ExplanationSet

ALIKE = ("players", "model", "unit", "base", "background_sha256")
"""What contracts must agree in for contributions to be near each other."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A known row.

    Attributes:
        key: Its name.
        distance: Euclidean distance of the contributions, in units of the score.
        decided: Score that was decided on.
        outcome: 1 bad, 0 good, -1 unknown.
        strongest: The player that raised its score most, in words.
    """

    key: str
    distance: float
    decided: float
    outcome: int
    strongest: str


def nearest(
    case: ExplanationSet,
    known: ExplanationSet,
    outcomes: NDArray[np.int8],
    *,
    count: int = 6,
) -> tuple[Neighbour, ...]:
    """Return the known rows whose contributions are nearest to those of a case.

    Args:
        case: One row.
        known: Rows explained alike; one of the case's key is left out.
        outcomes: int8 ``[n]`` of the known rows.
        count: Most rows.

    Raises:
        ExplanationError: When model, players or background differ, there is not one case, or not
            one outcome for each known row.
    """
    differ = differences(case.contract, known.contract, ALIKE)
    if differ:
        raise ExplanationError(
            f"the case and the known rows differ in {differ}: explain both by one model, one "
            "background and the same players"
        )
    if len(case) != 1 or outcomes.shape != (len(known),):
        raise ExplanationError(
            f"one case and one outcome for each of {len(known)} known rows are needed, got "
            f"{len(case)} cases and outcomes {outcomes.shape}"
        )
    far = np.linalg.norm(known.values - case.values[0], axis=1)
    order = [p for p in np.argsort(far, kind="stable").tolist() if known.keys[p] != case.keys[0]]
    strongest = known.order[:, 0]
    return tuple(
        Neighbour(
            known.keys[p],
            float(far[p]),
            float(known.decided[p]),
            int(outcomes[p]),
            known.contract.labels[strongest[p]],
        )
        for p in order[:count]
    )
