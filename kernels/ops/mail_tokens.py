"""Gather of mail tokens: for each row, what its mailboxes hold, relative to the row itself.

A token is ``age`` (days since the message), ``ratio`` (log of amount now over amount then),
``match`` (1 if the message's counterpart takes part in the row at hand), then the message vector.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.jit import compiled

DAY_MS = 86_400_000.0
RATIO_LIMIT = 6.0
TOKEN_HEAD = 3


class Messages(NamedTuple):
    """Every row of a history as a message; arrays of length n.

    Attributes:
        time: int64 epoch milliseconds.
        amount: int64 minor units.
        entity: int64 [n, C], the entity in each column, numbered across kinds.
        counterpart: int64 [n, C], the counterpart that a message in column c names (-1: none).
        vector: float32 [n, W].
    """

    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    entity: NDArray[np.int64]
    counterpart: NDArray[np.int64]
    vector: NDArray[np.float32]


def gather_tokens(
    rows: NDArray[np.int64],
    index: NDArray[np.int32],
    reader: NDArray[np.int64],
    section: NDArray[np.int64],
    messages: Messages,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return tokens and mask of some rows.

    Args:
        rows: int64 [m] rows that read.
        index: int32 [m, G, K] rows whose messages each section holds, -1 for an empty slot.
        reader: int64 [G] column whose entity's mailbox the section belongs to.
        section: int64 [G] column in which that entity stood when the message came.
        messages: The history.

    Returns:
        float32 [m, G * K, 3 + W] and float32 [m, G * K] (1 where a message lies).
    """
    m, groups, slots = index.shape
    width = TOKEN_HEAD + messages.vector.shape[1]
    tokens = np.zeros((m, groups * slots, width), np.float32)
    mask = np.zeros((m, groups * slots), np.float32)
    _gather(rows, index, reader, section, messages, tokens, mask)
    return tokens, mask


def gather_tokens_reference(
    rows: NDArray[np.int64],
    index: NDArray[np.int32],
    reader: NDArray[np.int64],
    section: NDArray[np.int64],
    messages: Messages,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the same as ``gather_tokens``, message by message, from ``relate``."""
    m, groups, slots = index.shape
    width = TOKEN_HEAD + messages.vector.shape[1]
    tokens = np.zeros((m, groups, slots, width), np.float32)
    mask = np.zeros((m, groups, slots), np.float32)
    for position, group, slot in np.argwhere(index >= 0):
        i, j = rows[position], index[position, group, slot]
        others = np.delete(messages.entity[i], reader[group])
        tokens[position, group, slot] = relate(
            int(messages.time[i]),
            int(messages.amount[i]),
            int(messages.time[j]),
            int(messages.amount[j]),
            messages.vector[j],
            match=bool((others == messages.counterpart[j, section[group]]).any()),
        )
        mask[position, group, slot] = 1.0
    return tokens.reshape(m, groups * slots, width), mask.reshape(m, groups * slots)


def relate(
    time: int,
    amount: int,
    mail_time: int,
    mail_amount: int,
    vector: NDArray[np.float32],
    *,
    match: bool,
) -> NDArray[np.float32]:
    """Return the token of one message as a transaction at ``time`` over ``amount`` sees it.

    The online form: an API or a stream reads (time, amount, counterpart, vector) from a state
    block and needs nothing else.
    """
    ratio = math.log(max(amount, 1) / max(mail_amount, 1))
    head = [(time - mail_time) / DAY_MS, min(max(ratio, -RATIO_LIMIT), RATIO_LIMIT), float(match)]
    token: NDArray[np.float32] = np.concatenate([np.array(head, np.float32), vector])
    return token


@compiled
def _gather(
    rows: NDArray[np.int64],
    index: NDArray[np.int32],
    reader: NDArray[np.int64],
    section: NDArray[np.int64],
    messages: Messages,
    tokens: NDArray[np.float32],
    mask: NDArray[np.float32],
) -> None:
    time, amount = messages.time, messages.amount
    entity, counterpart, vector = messages.entity, messages.counterpart, messages.vector
    m, groups, slots = index.shape
    for p in range(m):
        i = rows[p]
        for g in range(groups):
            for k in range(slots):
                j = index[p, g, k]
                if j < 0:
                    continue
                token = tokens[p, g * slots + k]
                ratio = math.log(max(amount[i], 1) / max(amount[j], 1))
                token[0] = (time[i] - time[j]) / 86_400_000.0
                token[1] = min(max(ratio, -6.0), 6.0)
                named = counterpart[j, section[g]]
                for c in range(entity.shape[1]):
                    if c != reader[g] and entity[i, c] == named:
                        token[2] = 1.0
                for w in range(vector.shape[1]):
                    token[3 + w] = vector[j, w]
                mask[p, g * slots + k] = 1.0
