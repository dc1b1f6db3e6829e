"""The truth in plain Python: the definition applied literally to lists of events.

Slow on purpose. Nothing here is shared with the compiled engine except the spec, the feature
order and, for writing blocks, the structured dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.events import Events
from kernels.entity_state.fields import feature_names
from kernels.entity_state.layout import NONE, label_slots, ring_sizes, view
from kernels.entity_state.spec import StateSpec
from kernels.entity_state.state import PENDING, EntityState, empty_state


@dataclass(slots=True)
class ReferenceSection:
    """What one entity remembers in one role, as plain lists.

    Attributes:
        spec: Windows, delay and sizes.
        events: (time, event_id, amount) in order of arrival, duplicates left out.
        labels: (event time, label) in order of release.
    """

    spec: StateSpec
    events: list[tuple[int, int, int]] = field(default_factory=list)
    labels: list[tuple[int, int]] = field(default_factory=list)

    def apply(self, event_id: int, time: int, amount: int) -> bool:
        """Enter an event unless its id is among the recent ones."""
        if event_id in [known for _, known, _ in self.events[-self.spec.recent_ids :]]:
            return False
        self.events.append((time, event_id, amount))
        return True

    def release(self, event_time: int, label: int) -> None:
        """Make a label known."""
        self.labels.append((event_time, label))

    def read(self, time: int, amount: int) -> list[float]:
        """Return the features an event of ``amount`` at ``time`` sees, itself counted in."""
        spec = self.spec
        features: list[float] = []
        for window in spec.windows:
            size = ring_sizes(spec)[window.tile]
            retained = _retained([(t, a) for t, _, a in self.events], window.tile, size)
            low, high = (time - window.length) // window.tile, time // window.tile
            amounts = [a for t, a in retained if low <= t // window.tile <= high] + [amount]
            features += [len(amounts), sum(amounts), sum(a * a for a in amounts)]
            features += [min(amounts), max(amounts)]
            retained = _retained(self.labels, spec.label_tile, label_slots(spec))
            low = (time - spec.delay - window.length) // spec.label_tile
            high = (time - spec.delay) // spec.label_tile
            known = [y for t, y in retained if low <= t // spec.label_tile <= high]
            features += [len(known), sum(known)]
        return features + self._last(time)

    def _last(self, time: int) -> list[float]:
        previous = max((t for t, _, _ in self.events), default=None)
        last_label = self.labels[-1][1] if self.labels else -1
        fraud = max((t for t, y in self.labels if y == 1), default=None)
        run = self.run()
        opened = run[0] if run else None
        return [_age(time, previous), last_label, _age(time, fraud), _age(time, opened), len(run)]

    def run(self) -> list[int]:
        """Return the event times of the current run of known frauds, oldest release first."""
        run: list[int] = []
        for time, label in self.labels:
            run = [*run, time] if label == 1 else []
        return run

    def write(self, section: NDArray[np.void]) -> None:
        """Write tiles, labels, recent ids and last fields into a fresh section (shape [1])."""
        spec = self.spec
        for tile, size in ring_sizes(spec).items():
            ring = section[f"tiles_{tile}"]
            for t, a in _retained([(t, a) for t, _, a in self.events], tile, size):
                slot, empty = t // tile % size, ring["count"][0, t // tile % size] == 0
                ring["index"][0, slot] = t // tile
                ring["count"][0, slot] += 1
                ring["sum"][0, slot] += a
                ring["sumsq"][0, slot] += float(a) * float(a)
                ring["min"][0, slot] = a if empty else min(a, ring["min"][0, slot])
                ring["max"][0, slot] = a if empty else max(a, ring["max"][0, slot])
        labels = section["labels"]
        for t, y in _retained(self.labels, spec.label_tile, label_slots(spec)):
            slot = t // spec.label_tile % label_slots(spec)
            labels["index"][0, slot] = t // spec.label_tile
            labels["known"][0, slot] += 1
            labels["frauds"][0, slot] += y
        for position, (_, event_id, _) in enumerate(self.events):
            section["recent_ids"][0, position % spec.recent_ids] = event_id
        run = self.run()
        section["events"] = len(self.events)
        section["last_time"] = max((t for t, _, _ in self.events), default=NONE)
        section["last_label"] = self.labels[-1][1] if self.labels else -1
        section["last_fraud_time"] = max((t for t, y in self.labels if y == 1), default=NONE)
        section["run_start"] = run[0] if run else NONE
        section["run_length"] = len(run)


def reference_features(
    events: Events, spec: StateSpec, n_entities: int, *, keep_state: bool
) -> tuple[NDArray[np.float64], EntityState | None]:
    """Return the features of every row, one row at a time; see `batch.entity_features`."""
    sections: dict[tuple[int, int], ReferenceSection] = {}
    waiting: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    out = np.empty((len(events.time), spec.roles, len(feature_names(spec))))
    for i in range(len(events.time)):
        time, event_id, amount = int(events.time[i]), int(events.event_id[i]), int(events.amount[i])
        for role in range(spec.roles):
            key = (int(events.keys[i, role]), role)
            section = sections.setdefault(key, ReferenceSection(spec))
            pending = waiting.setdefault(key, [])
            _release_due(section, pending, time)
            out[i, role] = section.read(time, amount)
            if section.apply(event_id, time, amount) and events.label[i] >= 0:
                pending.append((int(events.label_time[i]), time, event_id, int(events.label[i])))
    if not keep_state:
        return out, None
    return out, _state(sections, waiting, spec, n_entities, events)


def _state(
    sections: dict[tuple[int, int], ReferenceSection],
    waiting: dict[tuple[int, int], list[tuple[int, int, int, int]]],
    spec: StateSpec,
    n_entities: int,
    events: Events,
) -> EntityState:
    """Return blocks written from the lists, with labels due by the last row released."""
    blocks = empty_state(spec, n_entities).blocks
    left = []
    for (entity, role), section in sections.items():
        pending = waiting[entity, role]
        _release_due(section, pending, int(events.time[-1]))
        record = view(blocks[entity : entity + 1], spec)
        section.write(record["roles"][:, role])
        record["header"]["version"] += len(section.events) + len(section.labels)
        left += [(due, t, event, entity, role, y) for due, t, event, y in pending]
    left.sort(key=lambda row: (row[4], row[0], row[1], row[2]))
    return EntityState(spec, blocks, np.array(left, PENDING))


def _release_due(
    section: ReferenceSection, pending: list[tuple[int, int, int, int]], time: int
) -> None:
    for due in sorted(row for row in pending if row[0] <= time):
        section.release(due[1], due[3])
        pending.remove(due)


def _retained(rows: list[tuple[int, int]], tile: int, size: int) -> list[tuple[int, int]]:
    """Return the (time, value) rows whose tile no newer tile of the same ring slot replaced."""
    newest: dict[int, int] = {}
    for time, _ in rows:
        index = time // tile
        newest[index % size] = max(index, newest.get(index % size, index))
    return [(t, value) for t, value in rows if newest[t // tile % size] == t // tile]


def _age(time: int, since: int | None) -> float:
    return -1.0 if since is None else max(time - since, 0) / 1000.0
