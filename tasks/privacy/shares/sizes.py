"""How long a message of a plan can be, and so how many rows a batch may have.

A batch is what one message of each step speaks of, and what a deal is read by. Sessions go through
any number of batches, so rows have no limit; a batch has, and is refused before memory is taken.
"""

from __future__ import annotations

from tasks.privacy.shares.dealing import sections
from tasks.privacy.shares.plan import JointPlan, PlanError

MOST_BYTES = 64 << 20
"""Of one message, and of what either party is dealt in full for a batch.

Eight batches are under way at once, so a party holds some ten times as much.
"""


def sent_bytes(plan: JointPlan) -> int:
    """Return the most bytes that one row takes in a message."""
    return max(max(*plan.inputs, plan.units) * plan.width, 8 * plan.scores)


def row_bytes(plan: JointPlan) -> int:
    """Return the most bytes that one row takes in a message or in a party's deal."""
    dealt = max(8 * sum(sections(plan, party).values()) for party in (0, 1))
    return max(sent_bytes(plan), dealt)


def weight_bytes(plan: JointPlan) -> int:
    """Return the bytes of the message with masked weights, once for a session."""
    return plan.units * max(plan.inputs) * plan.width


def most_rows(plan: JointPlan) -> int:
    """Return how many rows a batch may have, at least 1.

    Raises:
        PlanError: When the weights, or one row alone, are too many bytes.
    """
    weights, row = weight_bytes(plan), row_bytes(plan)
    if max(weights, row) > MOST_BYTES:
        raise PlanError(
            f"masked weights of this plan take {weights} bytes and a row {row}, and a batch has"
            f" at most {MOST_BYTES}; compile a model of fewer columns, hidden units or scores"
        )
    return MOST_BYTES // row


def step_bytes(plan: JointPlan, rows: int) -> int:
    """Return the bytes of the longest message of a batch of so many rows.

    Raises:
        PlanError: When that is more than one may have.
    """
    most = most_rows(plan)
    if rows > most:
        raise PlanError(
            f"a batch of {rows} rows of this plan takes {rows * row_bytes(plan)} bytes, and one"
            f" has at most {MOST_BYTES}; deal in batches of at most {most} rows"
            f" (--batch-rows {most})"
        )
    return max(rows * sent_bytes(plan), weight_bytes(plan))
