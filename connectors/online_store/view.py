"""The state of an entity as readers use it: its parts joined to a block, its waiting labels beside.

A view owns its bytes. Before it is read for an event, the labels that are due are released; a
process that writes the store itself enters the event, says which parts changed, and commits the
records that the view makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.errors import RecordError
from connectors.online_store.record import (
    HEADER,
    Labels,
    Record,
    encode_value,
    entity_prefix,
    first_version,
    labels_in,
)
from connectors.online_store.shape import Shape, shape_of
from connectors.online_store.store import OnlineStore
from kernels.entity_state.spec import StateSpec
from kernels.entity_state.waiting import insert_label, release_due

_NO_LABELS = np.empty((0, 4), np.int64)


class EntityView:
    """The state of one entity, as far as the store had it.

    Attributes:
        kind: Kind of the entity.
        id: Its id.
        spec: Spec of the kind.
        block: Joined block uint8 [size], writable and owned by this view.
        waiting: Per role the labels that wait, int64 [p, 4] in order of release.
        versions: Version per part number; parts never seen are absent.
        emitted_at: When the newest part was published, epoch milliseconds; 0 if none was.
    """

    __slots__ = ("block", "emitted_at", "id", "kind", "spec", "versions", "waiting")

    def __init__(
        self, kind: str, entity: str, spec: StateSpec, records: Sequence[Record | None] = ()
    ) -> None:
        """Join the records of an entity; without any, it is one never seen.

        Raises:
            RecordError: When a record was written with another spec.
        """
        shape = shape_of(spec)
        self.kind, self.id, self.spec = kind, entity, spec
        self.block: NDArray[np.uint8] = shape.empty.copy()
        self.waiting: list[Labels] = [_NO_LABELS] * spec.roles
        self.versions: dict[int, int] = {}
        self.emitted_at = 0
        for record in records:
            if record is not None:
                self._join(record, shape)

    @property
    def known(self) -> bool:
        """Whether the store has anything about the entity."""
        return bool(self.versions)

    def release(self, time: int, event_id: int) -> int:
        """Release the labels that an event may know into the block; returns how many.

        Args:
            time: Epoch milliseconds of the event.
            event_id: Its id; labels of later events stay.
        """
        released = 0
        for role, labels in enumerate(self.waiting):
            if len(labels) and labels[0, 0] <= time:
                count = release_due(self.block, role, labels, time, event_id, spec=self.spec)
                self.waiting[role] = labels[count:]
                released += count
        return released

    def add_label(self, role: int, label_time: int, time: int, event_id: int, label: int) -> None:
        """Let a label wait for its time.

        Args:
            role: Role of the entity in the event.
            label_time: When the label counts, epoch milliseconds.
            time: Time of the event, epoch milliseconds.
            event_id: Id of the event.
            label: 1 fraud, 0 legitimate.
        """
        self.waiting[role] = insert_label(self.waiting[role], label_time, time, event_id, label)

    def records(self, parts: Iterable[int], *, epoch: int, emitted_at: int) -> list[Record]:
        """Return the records of parts that changed, each one version higher; the view keeps it.

        Args:
            parts: Numbers of the parts: ``2 * role`` for tiles and labels, ``2 * role + 1`` for
                the mailbox.
            epoch: Epoch of parts never written before (`record.epoch_of`).
            emitted_at: Now, epoch milliseconds.
        """
        shape, entity = shape_of(self.spec), entity_prefix(self.kind, self.id)
        made = []
        for number in parts:
            part = shape.parts[number]
            version = max(self.versions.get(number, 0) + 1, first_version(epoch))
            content = self.block[part.offset : part.offset + part.size].tobytes()
            labels = None if part.mail else self.waiting[part.role]
            value = encode_value(shape.digest, version, emitted_at, content, labels)
            made.append(Record(entity + shape.suffixes[number], value))
            self.versions[number] = version
        self.emitted_at = emitted_at
        return made

    def _join(self, record: Record, shape: Shape) -> None:
        key, value = record
        number = key[-1]
        digest, version, emitted_at, size, count = HEADER.unpack_from(value)
        if digest != shape.digest or number >= len(shape.parts) or size != shape.parts[number].size:
            raise RecordError(
                f"the store's state of kind {self.kind!r} (part {number}, {size} bytes) was made "
                "with other windows, delay or roles than the dataset config asks for",
                "Seed the store again, or serve with the config it was seeded with",
            )
        part = shape.parts[number]
        self.block[part.offset : part.offset + size] = np.frombuffer(
            value, np.uint8, size, HEADER.size
        )
        if count:
            self.waiting[part.role] = labels_in(value, size, count)
        self.versions[number] = version
        self.emitted_at = max(self.emitted_at, emitted_at)


def part_keys(kind: str, entity: str, spec: StateSpec) -> list[bytes]:
    """Return the keys of all parts of an entity."""
    prefix = entity_prefix(kind, entity)
    return [prefix + suffix for suffix in shape_of(spec).suffixes]


def read_views(
    store: OnlineStore, entities: Sequence[tuple[str, str]], specs: Mapping[str, StateSpec]
) -> list[EntityView]:
    """Return the state of several entities, all parts of all of them read in one go.

    Args:
        store: Where to read.
        entities: (kind, id) each.
        specs: Spec per kind (``tasks.fraud.features.state_specs``).

    Raises:
        StoreError: When the store cannot be read, or its records are of another spec.
    """
    keys: list[bytes] = []
    ends: list[int] = []
    for kind, entity in entities:
        keys += part_keys(kind, entity, specs[kind])
        ends.append(len(keys))
    records = store.read(keys)
    views, first = [], 0
    for (kind, entity), end in zip(entities, ends, strict=True):
        views.append(EntityView(kind, entity, specs[kind], records[first:end]))
        first = end
    return views
