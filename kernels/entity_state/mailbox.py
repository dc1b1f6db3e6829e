"""The mailbox of one section, read into arrays that stand ready: no allocation per event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.cpu import Words
from kernels.entity_state.layout import Plan
from kernels.jit import compiled


@compiled
def read_mailbox(
    words: Words,
    base: int,
    plan: Plan,
    present: NDArray[np.bool_],
    time: Words,
    amount: Words,
    counterpart: Words,
    vector: Words,
) -> None:
    """Write the newest messages of a section, most recent first.

    Args:
        words: int64, the block.
        base: First word of the section.
        plan: Layout as numbers.
        present: bool [K], filled; K may be less than the slots of the block.
        time: int64 [K], filled where present; the same holds for those below.
        amount: int64 [K].
        counterpart: int64 [K].
        vector: int64 [K, V], the float32 vectors as words.
    """
    size = plan.mail_size
    at = base + plan.mail
    mails = words[at - 1]
    for k in range(len(present)):
        present[k] = k < mails and k < size
        if not present[k]:
            continue
        slot = (mails - 1 - k) % size
        time[k] = words[at + slot]
        amount[k] = words[at + size + slot]
        counterpart[k] = words[at + 2 * size + slot]
        for v in range(plan.mail_words):
            vector[k, v] = words[at + 4 * size + slot * plan.mail_words + v]


@compiled
def holds_message(
    words: Words, base: int, plan: Plan, time: int, amount: int, counterpart: int
) -> bool:
    """Tell whether a section keeps a message of this time, amount and counterpart."""
    size = plan.mail_size
    at = base + plan.mail
    for slot in range(min(words[at - 1], size)):
        if (
            words[at + slot] == time
            and words[at + size + slot] == amount
            and words[at + 2 * size + slot] == counterpart
        ):
            return True
    return False
