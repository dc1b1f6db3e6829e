"""Gather of mail tokens: for each row, what its mailboxes hold, relative to the row itself.

A token is ``age`` (days since the message), ``ratio`` (log of amount now over amount then),
``match`` (1 if the message's counterpart takes part in the row at hand), then the message vector.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled

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


class _Mails(NamedTuple):
    """Mailboxes that some rows read, see ``relate_many``."""

    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    counterpart: NDArray[np.int64]
    vector: NDArray[np.float32]
    present: NDArray[np.bool_]


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


def relate_many(
    time: NDArray[np.int64],
    amount: NDArray[np.int64],
    keys: NDArray[np.int64],
    reader: NDArray[np.int64],
    mail_time: NDArray[np.int64],
    mail_amount: NDArray[np.int64],
    mail_counterpart: NDArray[np.int64],
    mail_vector: NDArray[np.float32],
    present: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the tokens of some transactions from the mailboxes they read: ``relate`` in batch.

    Args:
        time: int64 [n], epoch milliseconds of the transactions.
        amount: int64 [n], minor units.
        keys: int64 [n, C], the entity in each column, named as counterparts are.
        reader: int64 [G], column whose entity's mailbox each section belongs to.
        mail_time: int64 [n, G, K], epoch milliseconds of the messages in each section.
        mail_amount: int64 [n, G, K], minor units.
        mail_counterpart: int64 [n, G, K], entity on the other side.
        mail_vector: float32 [n, G, K, W].
        present: bool [n, G, K]; the other arrays may hold anything where it is False.

    Returns:
        Tokens and mask as ``gather_tokens`` gives them, bit by bit.

    Raises:
        ValueError: When the shapes do not fit each other.
    """
    n, groups, slots = present.shape
    fit = len(time) == len(amount) == len(keys) == n and len(reader) == groups
    words = (mail_time, mail_amount, mail_counterpart)
    if not fit or any(m.shape[:3] != present.shape for m in (*words, mail_vector)):
        raise ValueError(
            f"mailboxes of shape {present.shape} and vectors {mail_vector.shape} for {len(time)} "
            f"transactions, {len(keys)} rows of keys and {len(reader)} sections; all must fit"
        )
    if reader.size and not 0 <= reader.min() <= reader.max() < keys.shape[1]:
        raise ValueError(f"readers must be columns 0..{keys.shape[1] - 1}, got {reader.tolist()}")
    tokens = np.zeros((n, groups * slots, TOKEN_HEAD + mail_vector.shape[3]), np.float32)
    mask = np.zeros((n, groups * slots), np.float32)
    mails = _Mails(
        _words(mail_time),
        _words(mail_amount),
        _words(mail_counterpart),
        np.ascontiguousarray(mail_vector, np.float32),
        np.ascontiguousarray(present, np.bool_),
    )
    _relate_many(_words(time), _words(amount), _words(keys), _words(reader), mails, tokens, mask)
    return tokens, mask


def _words(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, np.int64)


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
                token[0] = (time[i] - time[j]) / 86_400_000.0
                token[1] = _ratio(amount[i], amount[j])
                named = counterpart[j, section[g]]
                for c in range(entity.shape[1]):
                    if c != reader[g] and entity[i, c] == named:
                        token[2] = 1.0
                for w in range(vector.shape[1]):
                    token[3 + w] = vector[j, w]
                mask[p, g * slots + k] = 1.0


@compiled
def _relate_many(
    time: NDArray[np.int64],
    amount: NDArray[np.int64],
    keys: NDArray[np.int64],
    reader: NDArray[np.int64],
    mails: _Mails,
    tokens: NDArray[np.float32],
    mask: NDArray[np.float32],
) -> None:
    mail_time, mail_amount, vector = mails.time, mails.amount, mails.vector
    n, groups, slots = mails.present.shape
    for i in range(n):
        for g in range(groups):
            for k in range(slots):
                if not mails.present[i, g, k]:
                    continue
                token = tokens[i, g * slots + k]
                token[0] = (time[i] - mail_time[i, g, k]) / 86_400_000.0
                token[1] = _ratio(amount[i], mail_amount[i, g, k])
                named = mails.counterpart[i, g, k]
                for c in range(keys.shape[1]):
                    if c != reader[g] and keys[i, c] == named:
                        token[2] = 1.0
                for w in range(vector.shape[3]):
                    token[3 + w] = vector[i, g, k, w]
                mask[i, g * slots + k] = 1.0


@compiled
def _ratio(amount: int, mail_amount: int) -> float:
    return min(max(math.log(max(amount, 1) / max(mail_amount, 1)), -6.0), 6.0)
