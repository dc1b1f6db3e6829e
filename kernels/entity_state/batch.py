"""Features of a whole history of one entity kind: the batch entry point and its input checks."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.entity_state.cpu import Labels, Rows, group, run_role
from kernels.entity_state.events import Events, check_events
from kernels.entity_state.fields import feature_names
from kernels.entity_state.layout import layout_of
from kernels.entity_state.reference import reference_features
from kernels.entity_state.spec import StateSpec
from kernels.entity_state.state import PENDING, EntityState, empty_state, grown

logger = logging.getLogger(__name__)

Backend = Literal["cpu", "reference"]
FeatureBlock: TypeAlias = NDArray[np.float64]
"""float64 [n, roles, features]; the last axis is named by `fields.feature_names`."""


def entity_features(
    time: ArrayLike,
    event_id: ArrayLike,
    amount: ArrayLike,
    label: ArrayLike,
    label_time: ArrayLike,
    keys: ArrayLike,
    *,
    spec: StateSpec,
    n_entities: int,
    backend: Backend = "cpu",
    state: EntityState | None = None,
    keep_state: bool = False,
) -> tuple[FeatureBlock, EntityState | None]:
    """Return the features every event sees, in event-time mode.

    Before the event at ``t`` is read, every label with ``label_time <= t`` of an event earlier in
    the order (time, event_id) is released, in order of (label_time, time, event_id). The event
    itself counts in its transaction-side features and never in its label side. A row whose id is
    among the entity's recent ids (a duplicate) still gets features but leaves no trace.

    Args:
        time: int64 [n], epoch milliseconds; rows sorted by (time, event_id).
        event_id: int64 [n].
        amount: int64 [n], minor units.
        label: int8 [n]; 1 fraud, 0 legitimate, -1 unknown (never released).
        label_time: int64 [n], epoch milliseconds from which a known label may be used; at least
            time + ``spec.delay``.
        keys: int32 [n, roles], entity code of each role, 0 <= code < ``n_entities``.
        spec: What an entity remembers.
        n_entities: Number of entity codes of this kind.
        backend: ``cpu`` (numba) or ``reference`` (plain Python, slow, the truth).
        state: State to continue from; it is not changed. May hold fewer entities.
        keep_state: Whether to return the final state; implied by ``state``. Costs one block
            (about 4 KiB) per entity.

    Returns:
        Features float64 [n, roles, features], and the final state with all labels released that
        are due by the time of the last row (None unless kept).

    Raises:
        ValueError: For arrays of the wrong shape, unsorted rows, codes out of range, labels
            usable before the delay, or an unknown backend.
    """
    events = check_events(time, event_id, amount, label, label_time, keys, spec, n_entities)
    if state is not None and state.spec != spec:
        raise ValueError("state was made with another spec; rebuild it or pass its own spec")
    logger.debug("entity state: %d rows, backend %s", len(events.time), backend)
    if backend == "reference":
        if state is not None:
            raise ValueError("the reference cannot continue from blocks; pass the whole history")
        return reference_features(events, spec, n_entities, keep_state=keep_state)
    if backend != "cpu":
        raise ValueError(f"backend {backend!r} does not exist; choose 'cpu' or 'reference'")
    return _cpu_features(events, spec, n_entities, state, keep=keep_state or state is not None)


def _cpu_features(
    events: Events, spec: StateSpec, n_entities: int, state: EntityState | None, *, keep: bool
) -> tuple[FeatureBlock, EntityState | None]:
    layout = layout_of(spec)
    if state is not None:
        kept = grown(state, n_entities)
    else:
        kept = empty_state(spec, n_entities if keep else 0)
    out = np.empty((len(events.time), spec.roles, len(feature_names(spec))))
    waiting = []
    for role in range(spec.roles):
        keys = np.ascontiguousarray(events.keys[:, role])
        order, starts = group(keys, n_entities)
        columns = (events.time[order], events.event_id[order], events.amount[order])
        rows = Rows(starts, order, *columns)
        old = kept.pending[kept.pending["role"] == role]
        labels, records = _labels(events, keys, old, n_entities)
        words, fresh = kept.blocks.view(np.int64), layout.empty.view(np.int64)
        run_role(words, fresh, layout.plan, role, rows, labels, out)
        if keep:
            waiting.append(_left(labels, *records, role))
    return out, EntityState(spec, kept.blocks, np.concatenate(waiting)) if keep else None


def _labels(
    events: Events, keys: NDArray[np.int32], old: NDArray[np.void], n_entities: int
) -> tuple[Labels, tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]]:
    """Return the role's known labels, waiting and new, in order of release.

    Also returns event ids and entities of the labels before ordering, and the order.
    """
    rows = np.flatnonzero(events.label >= 0)
    row = np.concatenate([np.full(len(old), -1, np.int64), rows])
    label_time = np.concatenate([old["label_time"], events.label_time[rows]])
    time = np.concatenate([old["time"], events.time[rows]])
    event_id = np.concatenate([old["event_id"], events.event_id[rows]])
    entity = np.concatenate([old["entity"], keys[rows]])
    label = np.concatenate([old["label"], events.label[rows]])
    order, starts = group(entity, n_entities)
    if len(old) or (np.diff(label_time) < 0).any():
        release = np.lexsort((event_id, time, label_time))
        inner, starts = group(entity[release], n_entities)
        order = release[inner]
    released = np.zeros(len(order), np.bool_)
    labels = Labels(starts, row[order], label_time[order], time[order], label[order], released)
    return labels, (event_id, entity, order)


def _left(
    labels: Labels,
    event_id: NDArray[np.int64],
    entity: NDArray[np.int32],
    order: NDArray[np.int64],
    role: int,
) -> NDArray[np.void]:
    """Return the labels that were not released, as `PENDING` records in order of release."""
    wait = ~labels.released
    left = np.empty(int(wait.sum()), PENDING)
    left["label_time"], left["time"] = labels.label_time[wait], labels.time[wait]
    left["event_id"], left["entity"] = event_id[order[wait]], entity[order[wait]]
    left["role"], left["label"] = role, labels.label[wait]
    ordered: NDArray[np.void] = left[
        np.lexsort((left["event_id"], left["time"], left["label_time"]))
    ]
    return ordered
