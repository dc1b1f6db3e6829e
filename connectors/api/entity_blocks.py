"""State blocks of recent entities of one kind, side by side in one array.

An entity takes a row ("slot") when it is first needed and gives it up when it was not needed for
longest. Compiled functions work on the rows in place; nothing is copied per request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.record import Labels, Record, encode_value, make_labels
from kernels.entity_state.cpu import (
    apply_to_section,
    deposit_to_section,
    is_recent,
    read_section,
    release_to_section,
)
from kernels.entity_state.fields import feature_names
from kernels.entity_state.keys import entity_key
from kernels.entity_state.layout import LAST, layout_of, spec_digest
from kernels.entity_state.parts import parts_of
from kernels.entity_state.spec import StateSpec

_EVENTS = LAST.index("events")
Waiting = tuple[int, int, int, int]
"""A label that waits: (label_time, time, event id, label); sorts in order of release."""


class BlockMismatchError(ValueError):
    """A record that was written with another spec; the message names the remedy."""


class EntityBlocks:
    """Blocks of one kind of entity.

    Attributes:
        kind: Kind of entity.
        spec: What a block remembers.
        plan: Its layout as numbers.
        parts: Its parts.
        words: int64 [capacity, words], the blocks.
        reals: The same memory as float64.
        keys: ``entity_key`` of the entity in each slot.
        first: Position of the first word in the memory of all kinds.
    """

    def __init__(self, kind: str, spec: StateSpec, memory: NDArray[np.int64], first: int) -> None:
        """Take a piece of the common memory.

        Args:
            kind: Kind of entity.
            spec: What a block remembers.
            memory: int64 [capacity * words], where the blocks lie.
            first: Position of the first of these words in the memory of all kinds.
        """
        layout = layout_of(spec)
        capacity = len(memory) // (layout.size // 8)
        self.kind, self.spec, self.first = kind, spec, first
        self.plan, self.parts = layout.plan, parts_of(spec)
        self.width = len(feature_names(spec))
        self.digest = spec_digest(spec)
        self._size = layout.size // 8
        self._empty = layout.empty.view(np.int64)
        self.words: NDArray[np.int64] = memory.reshape(capacity, layout.size // 8)
        self.reals: NDArray[np.float64] = self.words.view(np.float64)
        self.keys = [0] * capacity
        self._bytes: NDArray[np.uint8] = self.words.view(np.uint8)
        self._versions = [[0] * len(self.parts) for _ in range(capacity)]
        self._slots: dict[str, int] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._waiting: dict[tuple[int, int], list[Waiting]] = {}
        self._labels: dict[tuple[int, int], Labels] = {}  # the same as arrays, made when needed
        self._bases = [self.plan.header + role * self.plan.section for role in range(spec.roles)]

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, entity: str) -> int:
        """Return the slot of an entity and mark it as just used; -1 when it has none."""
        slot = self._slots.pop(entity, -1)
        if slot >= 0:
            self._slots[entity] = slot  # to the end: used last
        return slot

    def load(self, entity: str, records: Sequence[Record | None]) -> int:
        """Give an entity a slot with what the store knows of it.

        Args:
            entity: Its id.
            records: One per part, None where the store has none.

        Raises:
            BlockMismatchError: A record was written with another spec.
        """
        found = [record for record in records if record is not None]
        strange = next((r for r in found if r.digest != self.digest), None)
        if strange is not None or any(
            len(r.content) != p.size for r, p in zip(records, self.parts, strict=True) if r
        ):
            raise BlockMismatchError(
                f"the stored state of kind {self.kind!r} has other windows, delay or roles than "
                "this dataset config; seed a new store for it"
            )
        slot = self._take(entity)
        self.words[slot] = self._empty
        self.keys[slot] = entity_key(self.kind, entity)
        versions = self._versions[slot]
        for part, record in zip(self.parts, records, strict=True):
            versions[part.number] = 0
            if record is None:
                continue
            end = part.offset + part.size
            self._bytes[slot, part.offset : end] = np.frombuffer(record.content, np.uint8)
            versions[part.number] = record.version
            if not part.mail and len(record.labels):
                self._waiting[slot, part.role] = [tuple(row) for row in record.labels.tolist()]
                self._labels[slot, part.role] = record.labels.copy()
        return slot

    def forget(self, entity: str) -> None:
        """Drop what is held of an entity; the store's truth is read again when it is needed."""
        slot = self._slots.pop(entity, -1)
        if slot >= 0:
            self._clear(slot)
            self._free.append(slot)

    def place(self, slot: int, role: int) -> int:
        """Return the first word of a section in the memory of all kinds."""
        return self.first + slot * self._size + self._bases[role]

    def is_due(self, slot: int, role: int, time: int) -> bool:
        """Tell whether a label that waits beside a section may be released at a time."""
        waiting = self._waiting.get((slot, role))
        return waiting is not None and waiting[0][0] <= time

    def release_due(self, slot: int, role: int, time: int, event_id: int) -> None:
        """Make labels known that are due when the event (time, id) is looked at."""
        waiting = self._waiting.get((slot, role))
        if not waiting:
            return
        due = 0
        for label_time, label_of, label_id, label in waiting:
            if label_time > time or (label_of, label_id) >= (time, event_id):
                break
            release_to_section(self.words[slot], self._bases[role], self.plan, label_of, label)
            due += 1
        if due:
            self._keep_waiting(slot, role, waiting[due:])

    def await_label(self, slot: int, role: int, label: Waiting) -> None:
        """Let a label wait."""
        self._keep_waiting(slot, role, sorted([*self._waiting.get((slot, role), ()), label]))

    def waiting(self, slot: int, role: int) -> list[Waiting]:
        """Return the labels that wait, in order of release."""
        return list(self._waiting.get((slot, role), ()))

    def read(self, slot: int, role: int, time: int, amount: int, out: NDArray[np.float64]) -> None:
        """Write the raw features an event would see, itself counted in, into float64 [S]."""
        read_section(
            self.words[slot], self.reals[slot], self._bases[role], self.plan, time, amount, out
        )

    def apply(self, slot: int, role: int, event_id: int, time: int, amount: int) -> bool:
        """Count an event; returns False for one that is among the recent ids."""
        return apply_to_section(
            self.words[slot],
            self.reals[slot],
            self._bases[role],
            self.plan,
            event_id,
            time,
            amount,
        )

    def deposit(
        self,
        slot: int,
        role: int,
        time: int,
        amount: int,
        counterpart: int,
        column: int,
        vector: NDArray[np.int64],
    ) -> None:
        """Put a message into the mailbox; ``vector`` is float32 as int64 words, padded."""
        deposit_to_section(
            self.words[slot],
            self._bases[role],
            self.plan,
            time,
            amount,
            counterpart,
            column,
            vector,
        )

    def seen(self, slot: int, role: int, event_id: int) -> bool:
        """Tell whether an id is among the recent ones."""
        return is_recent(self.words[slot], self._bases[role], self.plan, event_id)

    def events(self, slot: int, role: int) -> int:
        """Return how many events were ever counted."""
        return int(self.words[slot, self._bases[role] + _EVENTS])

    def base(self, role: int) -> int:
        """Return the first word of a role's section."""
        return self._bases[role]

    def block(self, slot: int) -> NDArray[np.uint8]:
        """Return the bytes of a block; they are the block, not a copy."""
        block: NDArray[np.uint8] = self._bytes[slot]
        return block

    def record(self, slot: int, part_number: int, prefix: bytes, first: int, now: int) -> Record:
        """Return a part as the next version of its record.

        Args:
            slot: The entity.
            part_number: The part.
            prefix: ``entity_prefix`` of the entity.
            first: Least version, that of a part never written before.
            now: Epoch milliseconds.
        """
        part = self.parts[part_number]
        versions = self._versions[slot]
        version = versions[part_number] = max(versions[part_number] + 1, first)
        content = self._bytes[slot, part.offset : part.offset + part.size].data
        labels: Labels | None = None
        if not part.mail:
            labels = self._labels_of(slot, part.role)
        value = encode_value(self.digest, version, now, content, labels)
        return Record(prefix + bytes((0, part_number)), value)

    def state(self) -> Mapping[str, int]:
        """Return how much is held."""
        return {"entities": len(self._slots), "capacity": len(self.words)}

    def _take(self, entity: str) -> int:
        if entity in self._slots:
            slot = self._slots.pop(entity)
            self._clear(slot)
        elif self._free:
            slot = self._free.pop()
        else:
            oldest = next(iter(self._slots))
            slot = self._slots.pop(oldest)
            self._clear(slot)
        self._slots[entity] = slot
        return slot

    def _clear(self, slot: int) -> None:
        for role in range(self.spec.roles):
            self._keep_waiting(slot, role, [])

    def _labels_of(self, slot: int, role: int) -> Labels | None:
        waiting = self._waiting.get((slot, role))
        if not waiting:
            return None
        labels = self._labels.get((slot, role))
        if labels is None:
            labels = self._labels[slot, role] = make_labels(waiting)
        return labels

    def _keep_waiting(self, slot: int, role: int, labels: list[Waiting]) -> None:
        self._labels.pop((slot, role), None)
        if labels:
            self._waiting[slot, role] = labels
        else:
            self._waiting.pop((slot, role), None)
