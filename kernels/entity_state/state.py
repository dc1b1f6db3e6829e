"""The state of all entities of one kind: their blocks, and labels that are not due yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.layout import layout_of, view
from kernels.entity_state.spec import StateSpec

PENDING = np.dtype(
    [
        ("label_time", "<i8"),
        ("time", "<i8"),
        ("event_id", "<i8"),
        ("entity", "<i4"),
        ("role", "<i2"),
        ("label", "i1"),
    ]
)
"""A label that waits outside the block until ``label_time``."""


@dataclass(frozen=True, slots=True)
class EntityState:
    """Blocks and waiting labels of one entity kind.

    Attributes:
        spec: What the blocks remember.
        blocks: uint8 [n_entities, block size], one row per entity code.
        pending: `PENDING` records in order of (label_time, time, event_id), per role.
    """

    spec: StateSpec
    blocks: NDArray[np.uint8]
    pending: NDArray[np.void]

    @property
    def records(self) -> NDArray[np.void]:
        """The blocks as structured records [n_entities] that share their memory."""
        return view(self.blocks, self.spec)

    def copy(self) -> EntityState:
        """Return an independent copy."""
        return EntityState(self.spec, self.blocks.copy(), self.pending.copy())


def empty_state(spec: StateSpec, n_entities: int) -> EntityState:
    """Return fresh blocks for ``n_entities`` entities; memory is n_entities x block size."""
    blocks = np.tile(layout_of(spec).empty, (n_entities, 1))
    return EntityState(spec, blocks, np.empty(0, PENDING))


def grown(state: EntityState, n_entities: int) -> EntityState:
    """Return a copy with room for ``n_entities``; new entities get fresh blocks."""
    have = len(state.blocks)
    if n_entities < have:
        raise ValueError(f"state holds {have} entities, more than n_entities={n_entities}")
    fresh = np.tile(layout_of(state.spec).empty, (n_entities - have, 1))
    return EntityState(state.spec, np.concatenate([state.blocks, fresh]), state.pending.copy())
