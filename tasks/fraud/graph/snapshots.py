"""Snapshots of the past-only transaction-entity graph, and the entity embeddings made of them.

A snapshot at instant T knows the events before T and the labels usable at T, nothing else.
Snapshots lie on a fixed grid (by default every 7 days since 1970), so what a transaction reads
does not depend on what follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.graph.mail import mail_layout

if TYPE_CHECKING:
    from models.entity_sage import EntitySage, EntitySageConfig
    from models.geometric import HeteroData
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

DAY_MS = 86_400_000
NODE_FIELDS = 7
EDGE_FIELDS = 2


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """How snapshots are taken.

    Attributes:
        every: Milliseconds between snapshots.
        window: Milliseconds of events a snapshot's node features count.
        fan_out: Most recent events an entity takes messages from, per column and partner column.
    """

    every: int = 7 * DAY_MS
    window: int = 30 * DAY_MS
    fan_out: int = 10

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.every, self.window, self.fan_out) < 1:
            raise ValueError("snapshot.every, window and fan_out must be at least 1")


class EntityGraph:
    """The graph of a history, from which snapshots are cut.

    Attributes:
        config: How snapshots are taken.
        dataset: What the columns mean.
    """

    def __init__(
        self, tx: Transactions, dataset: DatasetConfig, config: SnapshotConfig | None = None
    ) -> None:
        from kernels.ops.temporal_graph import TemporalGraph

        self.config = config or SnapshotConfig()
        self._tx = tx
        self.dataset = dataset
        self._columns = mail_layout(dataset).columns
        self._sizes = {kind: len(tx.index[kind]) for kind in dataset.kinds}
        self._past = {
            c: TemporalGraph.build(tx.entities[c], self._sizes[tx.kinds[c]]) for c in self._columns
        }
        self._log_amount = np.log1p(np.maximum(tx.amount, 0)).astype(np.float32)

    def shape(self, *, hidden: int, embedding: int) -> EntitySageConfig:
        """Return the encoder's shape that fits these snapshots."""
        from models.entity_sage import EntitySageConfig

        kinds = self._tx.kinds
        inputs = tuple((k, NODE_FIELDS * len(c)) for k, c in self.dataset.kinds.items())
        relations = tuple((kinds[b], f"{b}_to_{a}", kinds[a]) for a, b in self._pairs())
        columns = tuple(kinds[c] for c in self._columns)
        return EntitySageConfig(inputs, relations, EDGE_FIELDS, columns, hidden, embedding)

    def instant(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the instant of the snapshot that is current at each time."""
        return time // self.config.every * self.config.every

    def snapshot(self, instant: int) -> HeteroData:
        """Return the graph as known at ``instant``.

        Node features per entity column: count, mean and deviation of log amounts in the window,
        known labels, known frauds (both as logarithms), days since the last event and since the
        last known fraud (as logarithms). Edges carry age and log amount.
        """
        import torch

        from models.geometric import HeteroData

        graph = HeteroData()
        for kind, columns in self.dataset.kinds.items():
            parts = [self._nodes(c, self._sizes[kind], instant) for c in columns]
            graph[kind].x = torch.from_numpy(np.concatenate(parts, axis=1))
        for a, b in self._pairs():
            index, attributes = self._edges(a, b, instant)
            store = graph[self._tx.kinds[b], f"{b}_to_{a}", self._tx.kinds[a]]
            store.edge_index = torch.from_numpy(index)
            store.edge_attr = torch.from_numpy(attributes)
        return graph

    def seen(self, kind: str, instant: int) -> NDArray[np.bool_]:
        """Return which entities of a kind took part in an event before ``instant``."""
        end = int(np.searchsorted(self._tx.time, instant))
        seen = np.zeros(self._sizes[kind], np.bool_)
        for column in self.dataset.kinds[kind]:
            seen[self._tx.entities[column][:end]] = True
        return seen

    def embed(self, encoder: EntitySage, instant: int) -> dict[str, NDArray[np.float32]]:
        """Return kind -> float32 [entities, E] at ``instant``.

        Entities without an event yet get the mean of the others: the declared cold start.
        """
        import torch

        with torch.no_grad():
            found = encoder.eval()(self.snapshot(instant))
        out = {}
        for kind, vectors in found.items():
            values, seen = vectors.numpy().copy(), self.seen(kind, instant)
            values[~seen] = values[seen].mean(axis=0) if seen.any() else 0.0
            out[kind] = values
        return out

    def lookup(self, encoder: EntitySage, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return float32 [m, C, E]: for every row and entity column the current embedding."""
        tx, width = self._tx, encoder.config.embedding
        out = np.zeros((len(rows), len(self._columns), width), np.float32)
        instants = self.instant(tx.time[rows])
        for instant in np.unique(instants):
            inside = instants == instant
            vectors = self.embed(encoder, int(instant))
            for position, column in enumerate(self._columns):
                codes = tx.entities[column][rows[inside]]
                out[inside, position] = vectors[tx.kinds[column]][codes]
        return out

    def _pairs(self) -> list[tuple[str, str]]:
        return [(a, b) for a in self._columns for b in self._columns if a != b]

    def _nodes(self, column: str, size: int, instant: int) -> NDArray[np.float32]:
        tx, window = self._tx, self.config.window
        start, end = np.searchsorted(tx.time, [instant - window, instant])
        keys, logs = tx.entities[column][start:end], self._log_amount[start:end]
        count = np.bincount(keys, minlength=size)
        mean = np.bincount(keys, logs, minlength=size) / np.maximum(count, 1)
        square = np.bincount(keys, logs * logs, minlength=size) / np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
        old = int(np.searchsorted(tx.time, instant - window - self.dataset.delay_ms))
        usable = (tx.label[old:end] >= 0) & (tx.label_time[old:end] <= instant)
        known = old + np.flatnonzero(usable)
        frauds = known[tx.label[known] == 1]
        codes = tx.entities[column]
        fields = [
            np.log1p(count),
            mean,
            deviation,
            np.log1p(np.bincount(codes[known], minlength=size)),
            np.log1p(np.bincount(codes[frauds], minlength=size)),
            _days_since(codes[start:end], tx.time[start:end], size, instant, window),
            _days_since(codes[frauds], tx.time[frauds], size, instant, window),
        ]
        nodes: NDArray[np.float32] = np.stack(fields, axis=1).astype(np.float32)
        return nodes

    def _edges(self, a: str, b: str, instant: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Edges to every entity of column ``a`` from its partners in column ``b``."""
        tx = self._tx
        size = self._sizes[tx.kinds[a]]
        end = int(np.searchsorted(tx.time, instant))
        entities = np.arange(size)
        rows = self._past[a].most_recent(entities, np.full(size, end), self.config.fan_out)
        to = np.repeat(entities, self.config.fan_out)[rows.ravel() >= 0]
        events = rows.ravel()[rows.ravel() >= 0]
        age = np.log1p((instant - tx.time[events]) / DAY_MS)
        attributes = np.stack([age, self._log_amount[events]], axis=1).astype(np.float32)
        return np.stack([tx.entities[b][events].astype(np.int64), to]), attributes


def _days_since(
    keys: NDArray[np.int32], time: NDArray[np.int64], size: int, instant: int, never: int
) -> NDArray[np.float64]:
    """Return log(1 + days) since each entity's last event; twice the window if there is none."""
    last = np.full(size, instant - 2 * never, np.int64)
    np.maximum.at(last, keys, time)
    days: NDArray[np.float64] = np.log1p((instant - last) / DAY_MS)
    return days
