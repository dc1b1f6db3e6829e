"""How long a side waits and how much it reads: what follows from plan and roster."""

from __future__ import annotations

from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster

HANDSHAKE_SECONDS = 10.0


def most_answer(plan: TrainingPlan, roster: Roster) -> int:
    """Return the most bytes that an answer of a branch can have."""
    letters = 64 + 128 * len(roster.names)
    return letters + 8 * max(plan.width(task) for task in plan.tasks)


def most_request(plan: TrainingPlan, roster: Roster) -> int:
    """Return the most bytes that a request to a branch can have."""
    keys = 64 + 160 * len(roster.names)
    return keys + 8 * (plan.network.parameters + 2 * len(plan.columns))
