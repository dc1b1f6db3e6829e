"""Own events laid over the state that a stream publishes, until the stream has counted them.

An event accepted here reaches the store only after its way through Kafka, the job and the store
writer. Until then whoever sends the next transaction of the same entity must see it all the same.
An event counts as covered when its id is among the recent ids of the block, or when the block has
counted so many more events that the id may have been pushed out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.mailbox import holds_message

if TYPE_CHECKING:
    from connectors.api.entity_states import Column, Entity, Touched


class OwnEvent(NamedTuple):
    """An event accepted here, as one of its entities sees it.

    Attributes:
        place: Position of the entity column.
        event_id: Its key.
        time: Epoch milliseconds.
        amount: Minor units.
        counterpart: Key of the entity on the other side, -1 without one.
        other: Entity column of the counterpart, -1 without one.
        vector: The message it leaves, int64 words.
        counted: Events the store's block had counted when it was accepted.
        expires: Monotonic second from which it is given up.
    """

    place: int
    event_id: int
    time: int
    amount: int
    counterpart: int
    other: int
    vector: NDArray[np.int64]
    counted: int
    expires: float


class Overlay:
    """Own events by entity, oldest first.

    Attributes:
        expired: Events given up because the stream did not bring them in time.
    """

    def __init__(
        self, columns: Sequence[Column], seconds: float, clock: Callable[[], float]
    ) -> None:
        self._columns, self._seconds, self._clock = columns, seconds, clock
        self._events: dict[Entity, list[OwnEvent]] = {}
        self._counted: dict[tuple[Entity, int], int] = {}
        self.expired = 0

    def __len__(self) -> int:
        return sum(map(len, self._events.values()))

    def lay_over(self, slots: Iterable[tuple[Entity, int]]) -> None:
        """Count own events in blocks as they were just read from the store."""
        self._counted.clear()
        for entity, slot in slots:
            for place, column in enumerate(self._columns):
                if column.kind == entity[0]:
                    counted = column.blocks.events(slot, column.role)
                    self._counted[entity, place] = counted
            waiting = self._events.get(entity)
            if waiting:
                self._lay(entity, slot, waiting)

    def add(self, events: Iterable[Touched]) -> None:
        """Remember events that were just accepted; their entities were read for them."""
        many, expires = len(self._columns) > 1, self._clock() + self._seconds
        for event in events:
            for place, column in enumerate(self._columns):
                entity = (column.kind, event.entities[place])
                other = (place + 1) % len(self._columns)
                self._events.setdefault(entity, []).append(
                    OwnEvent(
                        place,
                        event.event_id,
                        event.time,
                        event.amount,
                        event.keys[other] if many else -1,
                        other if many else -1,
                        event.vector,
                        self._counted.get((entity, place), 0),
                        expires,
                    )
                )

    def expire(self) -> None:
        """Give up events that the stream did not bring in time; call it now and then."""
        now = self._clock()
        for entity in list(self._events):
            events = self._events[entity]
            left = [event for event in events if event.expires > now]
            self.expired += len(events) - len(left)
            self._keep(entity, left)

    def _lay(self, entity: Entity, slot: int, waiting: list[OwnEvent]) -> None:
        left = [event for event in waiting if not self._covered(entity, slot, event)]
        for event in left:
            column = self._columns[event.place]
            blocks, role = column.blocks, column.role
            blocks.apply(slot, role, event.event_id, event.time, event.amount)
            # The mailbox is published by itself and may be ahead of the tiles.
            there = holds_message(
                blocks.words[slot],
                blocks.base(role),
                blocks.plan,
                event.time,
                event.amount,
                event.counterpart,
            )
            if not there:
                blocks.deposit(
                    slot,
                    role,
                    event.time,
                    event.amount,
                    event.counterpart,
                    event.other,
                    event.vector,
                )
        if len(left) != len(waiting):
            self._keep(entity, left)

    def _covered(self, entity: Entity, slot: int, event: OwnEvent) -> bool:
        column = self._columns[event.place]
        blocks = column.blocks
        newer = self._counted[entity, event.place] - event.counted
        return newer >= blocks.spec.recent_ids or blocks.seen(slot, column.role, event.event_id)

    def _keep(self, entity: Entity, events: list[OwnEvent]) -> None:
        if events:
            self._events[entity] = events
        else:
            self._events.pop(entity, None)
