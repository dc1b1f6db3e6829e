"""Mailboxes of a whole history: which earlier rows an entity's mailbox holds when a row is read.

A row reads the mailboxes of its entities first and deposits its own message afterwards, also when
one entity stands on both sides (APAN, Wang et al. 2021; TGN, Rossi et al. 2020).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.block import padded_vectors
from kernels.entity_state.cpu import Words, deposit_to_section
from kernels.entity_state.layout import Plan, layout_of
from kernels.entity_state.state import EntityState
from kernels.jit import compiled


def mail_index(keys: NDArray[np.int32], n_entities: int, slots: int) -> NDArray[np.int32]:
    """Return, for every row and role, the rows whose messages lie in the entity's mailbox.

    Args:
        keys: int32 [n, roles], entity codes of one kind; rows in event order.
        n_entities: Number of entity codes.
        slots: Messages kept per section (K).

    Returns:
        int32 [n, roles (reader), roles (section), slots]: row numbers, most recent first, -1 for
        an empty slot. ``[i, r, s]`` holds rows in which the entity ``keys[i, r]`` took role ``s``.

    Raises:
        ValueError: For codes out of range or ``slots`` below 1.
    """
    keys = _checked(keys, n_entities, slots)
    n, roles = keys.shape
    out = np.empty((n, roles, roles, slots), np.int32)
    rings = np.full((n_entities, roles, slots), -1, np.int32)
    _fill(keys, rings, np.zeros((n_entities, roles), np.int32), out)
    return out


def mail_index_reference(keys: NDArray[np.int32], n_entities: int, slots: int) -> NDArray[np.int32]:
    """Return the same as `mail_index`, from plain lists."""
    keys = _checked(keys, n_entities, slots)
    n, roles = keys.shape
    out = np.full((n, roles, roles, slots), -1, np.int32)
    took: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(n):
        for reader in range(roles):
            for section in range(roles):
                newest = took[int(keys[i, reader]), section][::-1][:slots]
                out[i, reader, section, : len(newest)] = newest
        for role in range(roles):
            took[int(keys[i, role]), role].append(i)
    return out


def deposit_rows(
    state: EntityState,
    time: NDArray[np.int64],
    amount: NDArray[np.int64],
    keys: NDArray[np.int32],
    counterpart: NDArray[np.int64],
    counterpart_role: NDArray[np.int64],
    vectors: NDArray[np.float32],
) -> None:
    """Deposit the messages of a batch into ``state`` in place, in row order.

    Args:
        state: State to change.
        time: int64 [n], epoch milliseconds.
        amount: int64 [n], minor units.
        keys: int32 [n, roles], receiving entity per role.
        counterpart: int64 [n, roles], key of the entity on the other side (-1: none).
        counterpart_role: int64 [n, roles], entity column of the counterpart (-1: none).
        vectors: float32 [n, roles, mail_width], message per receiving role.
    """
    spec = state.spec
    keys = _checked(keys, len(state.blocks), spec.mail_slots)
    n = len(keys)
    shape = (n, spec.roles, spec.mail_width)
    if keys.shape[1] != spec.roles or vectors.shape != shape:
        raise ValueError(
            f"keys must be [n, {spec.roles}] and vectors {shape}; got {keys.shape} and "
            f"{vectors.shape}"
        )
    plan = layout_of(spec).plan
    blocks = state.blocks.view(np.int64)
    for role in range(spec.roles):
        _deposit(
            blocks,
            plan.header + role * plan.section,
            plan,
            np.ascontiguousarray(keys[:, role]),
            np.ascontiguousarray(time, np.int64),
            np.ascontiguousarray(amount, np.int64),
            np.ascontiguousarray(counterpart[:, role], np.int64),
            np.ascontiguousarray(counterpart_role[:, role], np.int64),
            padded_vectors(vectors[:, role], spec),
        )


def _checked(keys: NDArray[np.int32], n_entities: int, slots: int) -> NDArray[np.int32]:
    keys = np.ascontiguousarray(keys, np.int32)
    if keys.ndim != 2:
        raise ValueError(f"keys must be [n, roles], got shape {keys.shape}")
    if slots < 1:
        raise ValueError(f"slots must be at least 1, got {slots}")
    if keys.size and (keys.min() < 0 or keys.max() >= n_entities):
        raise ValueError(
            f"entity codes must lie in 0..{n_entities - 1}, got {keys.min()}..{keys.max()}"
        )
    return keys


@compiled
def _fill(
    keys: NDArray[np.int32],
    rings: NDArray[np.int32],
    count: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    n, roles, slots = keys.shape[0], keys.shape[1], rings.shape[2]
    for i in range(n):
        for reader in range(roles):
            entity = keys[i, reader]
            for section in range(roles):
                newest = count[entity, section] - 1
                for k in range(slots):
                    # Slots never filled hold -1; a negative position is as old as the ring.
                    out[i, reader, section, k] = rings[entity, section, (newest - k) % slots]
        for role in range(roles):
            entity = keys[i, role]
            rings[entity, role, count[entity, role] % slots] = i
            count[entity, role] += 1


@compiled
def _deposit(
    blocks: Words,
    base: int,
    plan: Plan,
    keys: NDArray[np.int32],
    time: Words,
    amount: Words,
    counterpart: Words,
    counterpart_role: Words,
    vectors: Words,
) -> None:
    # numba's cache knows this file's time stamp, not that of the functions called: whoever changes
    # `deposit_to_section` must change this file too (layout 2).
    for i in range(len(keys)):
        deposit_to_section(
            blocks[keys[i]],
            base,
            plan,
            time[i],
            amount[i],
            counterpart[i],
            counterpart_role[i],
            vectors[i],
        )
