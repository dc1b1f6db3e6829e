"""Several events in one call: what they see, then that they happened, one after the other.

Blocks of all kinds lie in one flat array, so an event is a row of positions: for every entity
column the word at which the section of its entity begins. A whole request costs two calls.

numba's cache knows this file's time stamp, not that of the functions called: whoever changes what
`cpu` or `mailbox` do to a block must change this file too (layout 2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.cpu import (
    Reals,
    Words,
    apply_to_section,
    deposit_to_section,
    read_section,
)
from kernels.entity_state.layout import Plan
from kernels.entity_state.mailbox import read_mailbox
from kernels.jit import compiled


@compiled
def visit_rows(
    words: Words,
    reals: Reals,
    plan: Plan,
    bases: Words,
    event_id: Words,
    time: Words,
    amount: Words,
    out: Reals,
) -> None:
    """Write the raw features every event sees, and count it.

    Args:
        words: int64, blocks side by side; word 2 takes the count of changes and means nothing.
        reals: The same memory as float64.
        plan: Layout of a section as numbers; the same for all kinds.
        bases: int64 [n, C], first word of the section of every event's entities.
        event_id: int64 [n].
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        out: float64 [n, C, S], filled.
    """
    for i in range(bases.shape[0]):
        for c in range(bases.shape[1]):
            read_section(words, reals, bases[i, c], plan, time[i], amount[i], out[i, c])
        for c in range(bases.shape[1]):
            apply_to_section(words, reals, bases[i, c], plan, event_id[i], time[i], amount[i])


class Mail(NamedTuple):
    """Room for the mail of some events, and where they read it.

    Attributes:
        bases: int64 [n, G], first words of the sections that are read; G may be 0.
        present: bool [n, G, K].
        time: int64 [n, G, K], meant only where present, as the following are.
        amount: int64 [n, G, K].
        counterpart: int64 [n, G, K].
        vector: int64 [n, G, K, V], float32 as words.
    """

    bases: Words
    present: NDArray[np.bool_]
    time: Words
    amount: Words
    counterpart: Words
    vector: Words


@compiled
def exchange_mail(
    words: Words,
    plan: Plan,
    bases: Words,
    keys: Words,
    time: Words,
    amount: Words,
    vectors: Words,
    mail: Mail,
) -> None:
    """Let every event read its mailboxes and leave its message.

    Args:
        words: int64, blocks side by side.
        plan: Layout of a section as numbers.
        bases: int64 [n, C], as for `visit_rows`; where messages are left.
        keys: int64 [n, C], keys of the entities.
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        vectors: int64 [n, V], the messages, float32 as words.
        mail: Filled.
    """
    columns = bases.shape[1]
    for i in range(bases.shape[0]):
        for g in range(mail.bases.shape[1]):
            read_mailbox(
                words,
                mail.bases[i, g],
                plan,
                mail.present[i, g],
                mail.time[i, g],
                mail.amount[i, g],
                mail.counterpart[i, g],
                mail.vector[i, g],
            )
        for c in range(columns):
            # With one entity column there is no counterpart; with more, the next column's entity.
            other = (c + 1) % columns if columns > 1 else -1
            key = np.int64(-1)
            if columns > 1:
                key = keys[i, other]
            deposit_to_section(
                words, bases[i, c], plan, time[i], amount[i], int(key), other, vectors[i]
            )
