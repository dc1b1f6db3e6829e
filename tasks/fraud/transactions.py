"""Checked transactions as arrays: the one in-memory form that features and models read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Label of a row whose truth is not known (yet)."""


@dataclass(frozen=True, slots=True)
class Transactions:
    """Rows sorted by ``(time, event_id)``; all arrays have length ``n``.

    Attributes:
        event_id: int64 ids; textual ids are hashed to 64 bits when the table is read.
        time: int64 epoch milliseconds.
        amount: int64 minor units.
        label: int8; 1 fraud, 0 legitimate, -1 unknown.
        label_time: int64 epoch milliseconds at which the label may first be used (event time
            plus delay, or the time it became known, whichever is later).
        entities: Column name -> int32 codes into ``index[kind]``, in the order of the config.
        kinds: Column name -> entity kind.
        index: Kind -> original ids as a string array; position = code.
        numeric: Column name -> float64 (NaN: missing).
        categorical: Column name -> int32 codes into ``categories`` (-1: missing).
        categories: Column name -> original values as a string array.
        event_names: The ids as the data spell them, object array of str; None where every id is
            an integer and ``event_id`` says all.
    """

    event_id: NDArray[np.int64]
    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    label: NDArray[np.int8]
    label_time: NDArray[np.int64]
    entities: Mapping[str, NDArray[np.int32]]
    kinds: Mapping[str, str]
    index: Mapping[str, NDArray[np.str_]]
    numeric: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    categorical: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    categories: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    event_names: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.time)

    @property
    def original_ids(self) -> NDArray[np.int64] | NDArray[np.object_]:
        """The event ids by which a user finds the rows again: integers, or text [n]."""
        return self.event_id if self.event_names is None else self.event_names

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Transactions:
        """Return the chosen rows (order kept, indexes shared)."""
        return replace(
            self,
            event_id=self.event_id[rows],
            time=self.time[rows],
            amount=self.amount[rows],
            label=self.label[rows],
            label_time=self.label_time[rows],
            entities={c: a[rows] for c, a in self.entities.items()},
            numeric={c: a[rows] for c, a in self.numeric.items()},
            categorical={c: a[rows] for c, a in self.categorical.items()},
            event_names=None if self.event_names is None else self.event_names[rows],
        )
