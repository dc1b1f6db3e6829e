"""How long a side waits and how much it reads: what follows from plan and roster."""

from __future__ import annotations

from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.roster import Roster

HANDSHAKE_SECONDS = 10.0
MOST_BODY = 1 << 30
"""Bytes of the longest message of any plan; frames could hold four times as much."""


def most_answer(plan: TrainingPlan, roster: Roster) -> int:
    """Return the most bytes that an answer of a branch can have.

    Raises:
        ValueError: When that is more than any message may have.
    """
    letters = 64 + 128 * len(roster.names)
    return _allowed(letters + 8 * max(plan.width(task) for task in plan.tasks))


def most_request(plan: TrainingPlan, roster: Roster) -> int:
    """Return the most bytes that a request to a branch can have.

    Raises:
        ValueError: When that is more than any message may have.
    """
    keys = 64 + 160 * len(roster.names)
    return _allowed(keys + 8 * (plan.network.parameters + 2 * len(plan.columns)))


def _allowed(size: int) -> int:
    if size > MOST_BODY:
        raise ValueError(
            f"messages of this plan have up to {size:,} bytes, more than {MOST_BODY:,}; make"
            " plan.hidden narrower"
        )
    return size
