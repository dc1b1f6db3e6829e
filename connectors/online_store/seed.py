"""A whole history becomes the state of its entities, as if every event had come by the stream.

The kernel that computes training features runs over the transactions once more and keeps the
blocks; mail is deposited as ``tasks.fraud.graph.mail`` reads it, with counterparts named by their
`entity_key`. Labels that are not due by the last row wait beside the blocks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from connectors.online_store.record import (
    HEADER,
    LABEL_BYTES,
    LABEL_FIELDS,
    Record,
    entity_prefix,
    first_version,
)
from connectors.online_store.shape import shape_of

if TYPE_CHECKING:
    from connectors.online_store.store import OnlineStore
    from kernels.entity_state.spec import StateSpec
    from kernels.entity_state.state import EntityState
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

COVERED_UNTIL = "covered-until"
"""Named value of a seeded store: time of the last row it knows, epoch milliseconds as text."""

CHUNK = 2_000_000
"""Rows whose features are in memory at a time; they are by-products here."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """What a seeding did.

    Attributes:
        entities: Entities per kind.
        records: Records that were newer than what the store had.
        until: Time of the last row, epoch milliseconds.
        seconds: Time it took.
    """

    entities: Mapping[str, int]
    records: int
    until: int
    seconds: float


def seed_store(
    store: OnlineStore,
    tx: Transactions,
    config: DatasetConfig,
    *,
    epoch: int,
    mail: bool = True,
    features: FeatureSet | None = None,
) -> Seeded:
    """Write the state of every entity of a history.

    Args:
        store: Where to; what it has with a higher version stays.
        tx: The history, in the order (time, event_id); at least one row.
        config: What its columns mean.
        epoch: Epoch of the versions (`record.epoch_of`); higher than that of an earlier seeding.
        mail: Whether to fill the mailboxes too. They need every feature of every row.
        features: The features of ``tx`` where they have been computed already.

    Returns:
        What was written.

    Raises:
        StoreError: When the store cannot take it.
        ValueError: For a history without rows.
    """
    from tasks.fraud.features import build_features, state_specs

    if not len(tx):
        raise ValueError("a history without rows seeds nothing; name another file")
    begun = time.perf_counter()
    vectors = None
    if mail:
        from tasks.fraud.graph.mail import mail_layout, message_vectors

        made = features if features is not None else build_features(tx, config)
        vectors = message_vectors(made, mail_layout(config))
        del made
    written, entities = 0, {}
    for kind, spec in state_specs(config).items():
        state = history_state(tx, config.kinds[kind], spec, len(tx.index[kind]))
        if vectors is not None:
            deposit_mail(state, tx, config, kind, vectors)
        written += store.write(state_records(state, kind, tx.index[kind], epoch, mail=mail))
        entities[kind] = len(tx.index[kind])
        del state
    until = int(tx.time[-1])
    store.put_meta(COVERED_UNTIL, str(until).encode())
    store.flush()
    seconds = time.perf_counter() - begun
    logger.debug("%s: %d records of %d rows in %.1f s", store.place, written, len(tx), seconds)
    return Seeded(entities, written, until, seconds)


def history_state(
    tx: Transactions, columns: tuple[str, ...] | list[str], spec: StateSpec, n_entities: int
) -> EntityState:
    """Return blocks and waiting labels of one kind after the whole history, without mail."""
    from kernels.entity_state.batch import entity_features
    from kernels.entity_state.state import empty_state

    keys = np.stack([tx.entities[c] for c in columns], axis=1)
    state: EntityState | None = empty_state(spec, n_entities) if len(tx) > CHUNK else None
    for start in range(0, len(tx), CHUNK):
        part = slice(start, start + CHUNK)
        _, state = entity_features(
            tx.time[part],
            tx.event_id[part],
            tx.amount[part],
            tx.label[part],
            tx.label_time[part],
            keys[part],
            spec=spec,
            n_entities=n_entities,
            state=state,
            keep_state=True,
        )
    assert state is not None  # noqa: S101 - keep_state keeps it
    return state


def deposit_mail(
    state: EntityState,
    tx: Transactions,
    config: DatasetConfig,
    kind: str,
    vectors: NDArray[np.float32],
) -> None:
    """Deposit the message of every row into the mailboxes of one kind, in place.

    Args:
        state: State of the kind.
        tx: The rows.
        config: What their columns mean.
        kind: The kind.
        vectors: float32 [n, W], what each row leaves; W at most the spec's mail width.
    """
    from kernels.entity_state.mail import deposit_rows

    columns = config.kinds[kind]
    counterpart, column_of = counterparts(tx, config, kind)
    width = state.spec.mail_width
    padded = np.zeros((len(tx), width), np.float32)
    padded[:, : vectors.shape[1]] = vectors
    deposit_rows(
        state,
        tx.time,
        tx.amount,
        np.stack([tx.entities[c] for c in columns], axis=1),
        counterpart,
        column_of,
        np.broadcast_to(padded[:, None], (len(tx), len(columns), width)),
    )


def counterparts(
    tx: Transactions, config: DatasetConfig, kind: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return who stands on the other side of every row, by role of a kind.

    It is the entity of the next column, as in ``tasks.fraud.graph.mail``.

    Returns:
        Keys int64 [n, roles] and places of their columns int64 [n, roles]; -1 where the config
        has a single entity column.
    """
    from kernels.entity_state.keys import entity_keys

    columns = config.kinds[kind]
    shape = (len(tx), len(columns))
    keys, places = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    if len(config.entities) == 1:
        return keys, places
    for role, column in enumerate(columns):
        here = [entity.column for entity in config.entities].index(column)
        place = (here + 1) % len(config.entities)
        other = config.entities[place]
        names = entity_keys(other.kind, tx.index[other.kind])
        keys[:, role] = names[tx.entities[other.column]]
        places[:, role] = place
    return keys, places


def state_records(
    state: EntityState,
    kind: str,
    ids: NDArray[np.str_],
    epoch: int,
    *,
    mail: bool,
    emitted_at: int | None = None,
) -> Iterator[Record]:
    """Yield the records of every entity of a kind, in the order of their keys.

    Args:
        state: Blocks and waiting labels.
        kind: The kind.
        ids: Id of every block.
        epoch: Epoch of the versions.
        mail: Whether the mailboxes are records too.
        emitted_at: When they were published, epoch milliseconds; now if left out.
    """
    shape, roles = shape_of(state.spec), state.spec.roles
    now = int(time.time() * 1000) if emitted_at is None else emitted_at
    version, size = first_version(epoch), state.blocks.shape[1]
    labels, starts = _grouped(state.pending, len(state.blocks), roles)
    prefixes = [entity_prefix(kind, str(entity)) for entity in ids]
    raw = np.ascontiguousarray(state.blocks).reshape(-1).data
    parts = [part for part in shape.parts if mail or not part.mail]
    for entity in sorted(range(len(prefixes)), key=prefixes.__getitem__):
        for part in parts:
            begin = entity * size + part.offset
            content, waiting = raw[begin : begin + part.size], b""
            if not part.mail:
                group = entity * roles + part.role
                waiting = labels[starts[group] * LABEL_BYTES : starts[group + 1] * LABEL_BYTES]
            head = HEADER.pack(shape.digest, version, now, part.size, len(waiting) // LABEL_BYTES)
            key = prefixes[entity] + shape.suffixes[part.number]
            yield Record(key, b"".join((head, content, waiting)))


def _grouped(pending: NDArray[np.void], entities: int, roles: int) -> tuple[bytes, list[int]]:
    """Return the bytes of all waiting labels, and where those of entity * roles + role begin."""
    group = pending["entity"].astype(np.int64) * roles + pending["role"]
    order = np.lexsort((pending["event_id"], pending["time"], pending["label_time"], group))
    table = np.empty((len(pending), len(LABEL_FIELDS)), "<i8")
    for i, name in enumerate(LABEL_FIELDS):
        table[:, i] = pending[name][order]
    starts = np.searchsorted(group[order], np.arange(entities * roles + 1))
    return table.tobytes(), starts.tolist()
