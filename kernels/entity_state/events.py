"""Checked rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.entity_state.spec import StateSpec


@dataclass(frozen=True, slots=True)
class Events:
    """Checked rows of a batch, sorted by (time, event_id).

    Attributes:
        time: int64 [n], epoch milliseconds.
        event_id: int64 [n].
        amount: int64 [n], minor units.
        label: int8 [n]; 1, 0, or -1 unknown.
        label_time: int64 [n], epoch milliseconds; read only where the label is known.
        keys: int32 [n, roles], entity code per role.
    """

    time: NDArray[np.int64]
    event_id: NDArray[np.int64]
    amount: NDArray[np.int64]
    label: NDArray[np.int8]
    label_time: NDArray[np.int64]
    keys: NDArray[np.int32]


def check_events(
    time: ArrayLike,
    event_id: ArrayLike,
    amount: ArrayLike,
    label: ArrayLike,
    label_time: ArrayLike,
    keys: ArrayLike,
    spec: StateSpec,
    n_entities: int,
) -> Events:
    """Return the arrays with their dtypes, or raise ValueError naming the first offence."""
    events = Events(
        time=np.ascontiguousarray(time, np.int64),
        event_id=np.ascontiguousarray(event_id, np.int64),
        amount=np.ascontiguousarray(amount, np.int64),
        label=np.ascontiguousarray(label, np.int8),
        label_time=np.ascontiguousarray(label_time, np.int64),
        keys=np.ascontiguousarray(keys, np.int32),
    )
    n = len(events.time)
    for name in ("time", "event_id", "amount", "label", "label_time"):
        shape = getattr(events, name).shape
        if shape != (n,):
            raise ValueError(f"{name} must have shape ({n},), got {shape}")
    if events.keys.shape != (n, spec.roles):
        raise ValueError(f"keys must have shape ({n}, {spec.roles}), got {events.keys.shape}")
    _check_order(events)
    if n and (events.keys.min() < 0 or events.keys.max() >= n_entities):
        raise ValueError(
            f"entity codes must lie in 0..{n_entities - 1}, got {events.keys.min()}.."
            f"{events.keys.max()}; give missing entities a code of their own"
        )
    early = (events.label >= 0) & (events.label_time < events.time + spec.delay)
    if early.any():
        row = int(early.argmax())
        raise ValueError(
            f"row {row}: its label may be used from time + {spec.delay} ms (the delay) on; "
            "make label_time at least that"
        )
    if n and events.label.max() > 1:
        raise ValueError("labels must be 1, 0 or -1 (unknown)")
    return events


def _check_order(events: Events) -> None:
    # Compared, not subtracted: ids made from text fill the whole int64 range.
    time, event_id = events.time, events.event_id
    later = (time[1:] == time[:-1]) & (event_id[1:] < event_id[:-1])
    wrong = (time[1:] < time[:-1]) | later
    if wrong.any():
        row = int(wrong.argmax()) + 1
        raise ValueError(f"row {row} comes before row {row - 1}: sort rows by (time, event_id)")
