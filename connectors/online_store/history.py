"""Time travel for audits: the state of an entity at a moment of the past, and what made it so.

The events and labels of the entity are taken from the log and replayed through the kernel in the
order of event-time mode, so what comes out is what that mode had (latency mode: the same final
tiles). A snapshot of a store shortens the replay where there is one from before the moment.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.errors import StoreError
from connectors.online_store.record import Labels, Record, check_record, entity_prefix, make_labels
from connectors.online_store.seed import COVERED_UNTIL, counterparts
from connectors.online_store.snapshot import META, RECORDS, read_snapshot
from connectors.online_store.view import EntityView
from tasks.fraud.features import state_specs

if TYPE_CHECKING:
    from kernels.entity_state.spec import StateSpec
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

LAST_ID = 2**63 - 1
"""An event id that no event comes after: the moment after all events of its millisecond."""

What = Literal["event", "duplicate", "label"]


class Change(NamedTuple):
    """Something that changed the state.

    Attributes:
        what: An event that counted, one that was a duplicate, or a label that became known.
        at: When it changed the state, epoch milliseconds; a label: from when it counted.
        role: Role of the entity in the event.
        time: Time of the event, epoch milliseconds.
        event_id: Id of the event.
        amount: Minor units of an event; 0 for a label.
        label: 0 or 1; -1 for an event.
    """

    what: What
    at: int
    role: int
    time: int
    event_id: int
    amount: int = 0
    label: int = -1


@dataclass(frozen=True, slots=True)
class Start:
    """Where a replay may begin.

    Attributes:
        records: Records of the entity in a snapshot.
        until: The snapshot knows every event and due label up to this time, epoch milliseconds.
    """

    records: tuple[Record, ...]
    until: int


@dataclass(frozen=True, slots=True)
class PastState:
    """The state at a moment.

    Attributes:
        view: Block and waiting labels of events before the moment; due labels are released.
        changes: What changed the state, in order; with a snapshot, what came after it.
        since: Where the changes begin: `Start.until`, or None for the beginning of the log.
    """

    view: EntityView
    changes: tuple[Change, ...]
    since: int | None


def state_as_of(
    tx: Transactions,
    config: DatasetConfig,
    kind: str,
    entity: str,
    time: int,
    event_id: int = LAST_ID,
    *,
    labels: Transactions | None = None,
    start: Start | None = None,
    mail: bool = False,
) -> PastState:
    """Return the state that the event (time, event_id) met, itself not counted.

    Args:
        tx: The log's transactions (`event_log.read_transactions`), with labels or without.
        config: What their columns mean.
        kind: Kind of the entity.
        entity: Its id.
        time: The moment, epoch milliseconds.
        event_id: Event before which to stop; left out: after all events of the moment.
        labels: The log's labels (`event_log.read_labels`), of events seen or not.
        start: Snapshot to begin with; one that reaches beyond the moment is not used.
        mail: Whether to fill the mailboxes; needs the features of the whole log up to the moment.

    Raises:
        StoreError: For a kind that the config does not have.
    """
    specs = state_specs(config)
    if kind not in specs:
        raise StoreError(f"kind {kind!r} is unknown", f"Known are {', '.join(specs)}")
    spec, columns = specs[kind], config.kinds[kind]
    if start is not None and start.until > time:
        logger.info("the snapshot reaches beyond %d ms; replaying from the beginning", time)
        start = None
    since = start.until if start is not None else None
    view = EntityView(kind, entity, spec, start.records if start is not None else ())
    facts = [table for table in (tx, labels) if table is not None]
    for role, column in enumerate(columns):
        rows = [row for table in facts for row in _labels(table, kind, column, entity, since)]
        view.waiting[role] = _merged(view.waiting[role], rows)
    changes = list(_replay(view, tx, config, (time, event_id), since, mail=mail))
    for role, waiting in enumerate(view.waiting):
        before = (waiting[:, 1] < time) | ((waiting[:, 1] == time) & (waiting[:, 2] < event_id))
        view.waiting[role] = waiting[before]
    return PastState(view, tuple(changes), since)


def read_start(path: Path, kind: str, entity: str, until: int | None = None) -> Start:
    """Return the records of an entity in a snapshot.

    Args:
        path: The snapshot.
        kind: Kind of the entity.
        entity: Its id.
        until: Event time up to which the stream had come; left out: as far as the store was
            seeded.

    Raises:
        SnapshotError: When the file is none or damaged.
        StoreError: When ``until`` is neither given nor in the snapshot.
    """
    prefix, records = entity_prefix(kind, entity), []
    for entry in read_snapshot(path):
        if entry.table == RECORDS and entry.key[:-2] == prefix:
            records.append(check_record(entry.key, entry.value))
        elif entry.table == META and entry.key == COVERED_UNTIL.encode() and until is None:
            until = int(entry.value)
    if until is None:
        raise StoreError(f"{path} does not say how far it reaches", "Give the event time it covers")
    return Start(tuple(records), until)


def _labels(
    table: Transactions, kind: str, column: str, entity: str, since: int | None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the known labels of an entity in one column that a snapshot had not released."""
    for i in np.flatnonzero(_of_entity(table, kind, column, entity) & (table.label >= 0)):
        if since is None or table.label_time[i] > since:
            yield (
                int(table.label_time[i]),
                int(table.time[i]),
                int(table.event_id[i]),
                int(table.label[i]),
            )


def _merged(waiting: Labels, rows: list[tuple[int, int, int, int]]) -> Labels:
    """Return labels in order of release, each event once: what waited already, then the first."""
    chosen: dict[int, tuple[int, int, int, int]] = {}
    for label_time, time, event_id, label in [*waiting.tolist(), *rows]:
        chosen.setdefault(event_id, (label_time, time, event_id, label))
    return make_labels(list(chosen.values()))


def _of_entity(table: Transactions, kind: str, column: str, entity: str) -> NDArray[np.bool_]:
    """Return which rows name the entity in a column, bool [n]."""
    code = np.flatnonzero(table.index[kind] == entity)
    if not len(code):
        return np.zeros(len(table), np.bool_)
    found: NDArray[np.bool_] = table.entities[column] == code[0]
    return found


def _replay(
    view: EntityView,
    tx: Transactions,
    config: DatasetConfig,
    moment: tuple[int, int],
    since: int | None,
    *,
    mail: bool,
) -> Iterator[Change]:
    """Enter events and labels in order; yields what changed the view."""
    from kernels.entity_state.block import apply_event

    spec, columns = view.spec, config.kinds[view.kind]
    touched = np.stack([_of_entity(tx, view.kind, c, view.id) for c in columns], axis=1)
    before = (tx.time < moment[0]) | ((tx.time == moment[0]) & (tx.event_id < moment[1]))
    rows = np.flatnonzero(
        touched.any(axis=1) & before & ((tx.time > since) if since is not None else True)
    )
    letters = _Letters(tx, config, view.kind, int(before.sum())) if mail and len(rows) else None
    for i in rows:
        time, event_id, amount = int(tx.time[i]), int(tx.event_id[i]), int(tx.amount[i])
        yield from _released(view, time, event_id)
        roles = [int(role) for role in np.flatnonzero(touched[i])]
        for role in roles:
            new = apply_event(view.block, role, event_id, time, amount, spec=spec)
            what: What = "event" if new else "duplicate"
            yield Change(what, time, role, time, event_id, amount)
        if letters is not None:
            for role in roles:
                letters.deposit(view, role, int(i))
    yield from _released(view, *moment)


def _released(view: EntityView, time: int, event_id: int) -> Iterator[Change]:
    """Release what is due; yields the labels."""
    earlier = list(view.waiting)
    view.release(time, event_id)
    for role, labels in enumerate(earlier):
        gone = len(labels) - len(view.waiting[role])
        for label_time, event_time, of, label in labels[:gone].tolist():
            yield Change("label", label_time, role, event_time, of, label=label)


class _Letters:
    """Messages of the log's rows, made like those of training."""

    def __init__(self, tx: Transactions, config: DatasetConfig, kind: str, rows: int) -> None:
        from tasks.fraud.features import build_features
        from tasks.fraud.graph.mail import mail_layout, message_vectors

        self._tx = tx.take(slice(0, rows))  # rows are in order, so these come before the moment
        self._vectors = message_vectors(build_features(self._tx, config), mail_layout(config))
        self._keys, self._places = counterparts(self._tx, config, kind)

    def deposit(self, view: EntityView, role: int, row: int) -> None:
        """Put the message of a row into the mailbox of a role."""
        from kernels.entity_state.block import deposit

        spec: StateSpec = view.spec
        vector = np.zeros(spec.mail_width, np.float32)
        vector[: self._vectors.shape[1]] = self._vectors[row]
        deposit(
            view.block,
            role,
            int(self._tx.time[row]),
            int(self._tx.amount[row]),
            int(self._keys[row, role]),
            int(self._places[row, role]),
            vector,
            spec=spec,
        )
