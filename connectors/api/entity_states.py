"""The state that transactions meet: fetched from the store, stepped forward, put back.

``EmbeddedState`` belongs to the one process that writes the store: it keeps recent blocks in
memory and commits blocks and answers together. ``StreamState`` belongs to a process that only
reads what a stream publishes, and lays its own accepted events over it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from connectors.api.entity_blocks import EntityBlocks
from connectors.api.overlay import Overlay
from connectors.online_store.record import entity_prefix, epoch_of, first_version
from connectors.online_store.store import Answer
from kernels.entity_state.layout import layout_of
from tasks.fraud.features import state_specs

if TYPE_CHECKING:
    from connectors.online_store.store import OnlineStore
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.online.parse import OnlineLabel

Entity = tuple[str, str]
"""(kind, id)."""

MIN_CAPACITY = 4_096
"""Entities per kind that are always held; more than any slice of a batch can touch."""

SCRATCH = 8
"""Words before the first block, for the count of changes that compiled functions keep."""

_EPOCH = "api-epoch"


class Column(NamedTuple):
    """An entity column, resolved.

    Attributes:
        name: Its name.
        kind: Kind of entity.
        role: Role among the columns of the kind.
        blocks: Where its entities' blocks are.
    """

    name: str
    kind: str
    role: int
    blocks: EntityBlocks


class Touched(NamedTuple):
    """An event's place in the state.

    Attributes:
        event_id: Its key.
        time: Epoch milliseconds.
        amount: Minor units.
        entities: Ids by column.
        keys: ``entity_key`` by column.
        vector: int64 words of the message it leaves.
    """

    event_id: int
    time: int
    amount: int
    entities: tuple[str, ...]
    keys: Sequence[int]
    vector: NDArray[np.int64]


class EntityState(Protocol):
    """What the engine needs of the state."""

    columns: tuple[Column, ...]
    memory: NDArray[np.int64]

    def fetch(self, entities: Iterable[Entity]) -> dict[Entity, int]:
        """Return the slot of every entity, its block as of now."""
        ...

    def finish(self, events: Sequence[Touched], answers: Mapping[int, bytes]) -> None:
        """Keep what the events changed, together with their answers."""
        ...

    def keep_label(self, label: OnlineLabel, answers: Mapping[int, bytes]) -> None:
        """Let a label wait for its time."""
        ...

    def forget(self, entities: Iterable[Entity]) -> None:
        """Drop what is held of entities: what was done to them is not to count."""
        ...

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what is kept of each event."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the number of entities held in memory, by kind."""
        ...


def make_columns(
    config: DatasetConfig, cache_bytes: int
) -> tuple[tuple[Column, ...], NDArray[np.int64]]:
    """Return the entity columns with room for blocks, and the memory of all of them.

    The columns of a kind share its blocks.
    """
    specs = state_specs(config)
    words = {kind: layout_of(spec).size // 8 for kind, spec in specs.items()}
    share = cache_bytes // len(specs) // 8
    sizes = {kind: max(share // n, MIN_CAPACITY) * n for kind, n in words.items()}
    memory = np.zeros(SCRATCH + sum(sizes.values()), np.int64)
    blocks, at = {}, SCRATCH
    for kind, spec in specs.items():
        blocks[kind] = EntityBlocks(kind, spec, memory[at : at + sizes[kind]], at)
        at += sizes[kind]
    return _columns(config, blocks), memory


def _columns(config: DatasetConfig, blocks: Mapping[str, EntityBlocks]) -> tuple[Column, ...]:
    return tuple(
        Column(e.column, e.kind, config.kinds[e.kind].index(e.column), blocks[e.kind])
        for e in config.entities
    )


def fetch_missing(
    columns: Sequence[Column], store: OnlineStore, entities: Iterable[Entity], *, anew: bool
) -> dict[Entity, int]:
    """Return the slot of every entity; reads those not held, or all of them, in one go."""
    by_kind = {column.kind: column.blocks for column in columns}
    slots: dict[Entity, int] = {}
    missing: list[Entity] = []
    for entity in entities:
        slot = -1 if anew else by_kind[entity[0]].find(entity[1])
        if slot < 0:
            missing.append(entity)
        slots[entity] = slot
    if not missing:
        return slots
    missing = list(dict.fromkeys(missing))
    keys: list[bytes] = []
    for kind, name in missing:
        prefix = entity_prefix(kind, name)
        keys += [prefix + bytes((0, part.number)) for part in by_kind[kind].parts]
    records = store.read(keys)
    at = 0
    for entity in missing:
        blocks = by_kind[entity[0]]
        count = len(blocks.parts)
        slots[entity] = blocks.load(entity[1], records[at : at + count])
        at += count
    return slots


class EmbeddedState:
    """State of the process that writes the store."""

    def __init__(
        self, config: DatasetConfig, store: OnlineStore, *, cache_bytes: int, answer_ms: int
    ) -> None:
        """Open it.

        Args:
            config: What the columns mean.
            store: The store, opened for writing.
            cache_bytes: Memory for blocks.
            answer_ms: How long answers are kept.
        """
        self.columns, self.memory = make_columns(config, cache_bytes)
        self._store, self._answer_ms = store, answer_ms
        self._first = first_version(_epoch(store))

    def fetch(self, entities: Iterable[Entity]) -> dict[Entity, int]:
        """Return the slot of every entity."""
        return fetch_missing(self.columns, self._store, entities, anew=False)

    def finish(self, events: Sequence[Touched], answers: Mapping[int, bytes]) -> None:
        """Commit the blocks of the events' entities and the answers, all or none."""
        changed: dict[tuple[str, int, str], Column] = {}
        for event in events:
            for column, name in zip(self.columns, event.entities, strict=True):
                changed[column.kind, column.role, name] = column
        self._commit(changed, answers, mail=True)

    def keep_label(self, label: OnlineLabel, answers: Mapping[int, bytes]) -> None:
        """Let a label wait beside the blocks of the event's entities."""
        waiting = (label.label_time, label.time, label.event_id, label.label)
        named = list(zip(self.columns, label.entities, strict=True))
        slots = self.fetch((column.kind, name) for column, name in named)
        for column, name in named:
            column.blocks.await_label(slots[column.kind, name], column.role, waiting)
        self._commit({(c.kind, c.role, name): c for c, name in named}, answers, mail=False)

    def forget(self, entities: Iterable[Entity]) -> None:
        """Read these entities from the store when they are needed next."""
        by_kind = {column.kind: column.blocks for column in self.columns}
        for kind, name in entities:
            by_kind[kind].forget(name)

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what is kept of each event."""
        return self._store.answers(event_ids)

    def sizes(self) -> dict[str, int]:
        """Return the number of entities held in memory, by kind."""
        return {column.kind: len(column.blocks) for column in self.columns}

    def _commit(
        self,
        changed: Mapping[tuple[str, int, str], Column],
        answers: Mapping[int, bytes],
        *,
        mail: bool,
    ) -> None:
        now = time.time_ns() // 1_000_000
        records = []
        for (kind, role, name), column in changed.items():
            blocks, prefix = column.blocks, entity_prefix(kind, name)
            slot = blocks.find(name)
            records.append(blocks.record(slot, 2 * role, prefix, self._first, now))
            if mail:
                records.append(blocks.record(slot, 2 * role + 1, prefix, self._first, now))
        until = now + self._answer_ms
        self._store.commit(records, {k: Answer(v, until) for k, v in answers.items()})


class StreamState:
    """State of a process that reads what a stream publishes."""

    def __init__(
        self,
        config: DatasetConfig,
        store: OnlineStore,
        kept: OnlineStore,
        *,
        overlay_seconds: float,
        answer_ms: int,
    ) -> None:
        """Open it.

        Args:
            config: What the columns mean.
            store: The store, opened for reading.
            kept: This process's own store of answers.
            overlay_seconds: How long own events await the stream.
            answer_ms: How long answers are kept.
        """
        self.columns, self.memory = make_columns(config, 0)
        self._store, self._kept, self._answer_ms = store, kept, answer_ms
        self.overlay = Overlay(self.columns, overlay_seconds, time.monotonic)

    def fetch(self, entities: Iterable[Entity]) -> dict[Entity, int]:
        """Return the slot of every entity, read anew, own events laid over."""
        slots = fetch_missing(self.columns, self._store, entities, anew=True)
        self.overlay.lay_over(slots.items())
        return slots

    def finish(self, events: Sequence[Touched], answers: Mapping[int, bytes]) -> None:
        """Keep the answers; lay the events over the state from now on."""
        self._keep(answers)
        self.overlay.add(events)

    def keep_label(self, label: OnlineLabel, answers: Mapping[int, bytes]) -> None:
        """Keep that the label came; the stream lets it wait."""
        del label
        self._keep(answers)

    def forget(self, entities: Iterable[Entity]) -> None:
        """Nothing is held of any entity beyond a request."""

    def answers(self, event_ids: Sequence[int]) -> list[bytes | None]:
        """Return what is kept of each event."""
        return self._kept.answers(event_ids)

    def sizes(self) -> dict[str, int]:
        """Return the number of entities held in memory, by kind."""
        return {column.kind: len(column.blocks) for column in self.columns}

    def _keep(self, answers: Mapping[int, bytes]) -> None:
        until = time.time_ns() // 1_000_000 + self._answer_ms
        self._kept.commit([], {k: Answer(v, until) for k, v in answers.items()})


def _epoch(store: OnlineStore) -> int:
    """Return the epoch in which this store was first written by an API."""
    kept = store.get_meta(_EPOCH)
    if kept is not None:
        return int(kept)
    epoch = epoch_of(time.time_ns() // 1_000_000)
    store.put_meta(_EPOCH, str(epoch).encode())
    return epoch
