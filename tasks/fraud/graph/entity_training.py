"""Training of the entity encoder: a link loss plus a fraud loss.

Every step takes one snapshot and training rows of the days that follow it, frauds drawn more often.
The link loss asks whether these entities deal with each other or one was swapped, the fraud loss
whether the row is a fraud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.graph.snapshots import EntityGraph

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kernels.runtime.callbacks import Callback
    from models.entity_sage import EntitySage
    from models.geometric import HeteroData
    from tasks.fraud.transactions import Transactions


@dataclass(frozen=True, slots=True)
class EntitySettings:
    """Settings of the entity embeddings.

    Attributes:
        embedding: Entries of an embedding; 0 leaves the embeddings out.
        hidden: Width of the encoder.
        steps: Optimizer steps.
        events: Events per step.
        fraud_share: Share of the events of a step that are frauds.
        learning_rate: Peak learning rate.
    """

    embedding: int = 8
    hidden: int = 24
    steps: int = 60
    events: int = 1024
    fraud_share: float = 0.1
    learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.embedding < 0 or min(self.hidden, self.steps, self.events) < 1:
            raise ValueError("entities: sizes must be at least 1 (embedding may be 0)")
        if not 0 < self.fraud_share < 1:
            raise ValueError("entities.fraud_share must lie in (0, 1)")


@dataclass(frozen=True, slots=True)
class EntityBatch:
    """One step's material.

    Attributes:
        graph: The snapshot.
        codes: int64 [m, C] entities of the events.
        swapped: int64 [m, C], the same with one column's entities swapped among the events.
        label: float32 [m].
    """

    graph: HeteroData
    codes: Tensor
    swapped: Tensor
    label: Tensor


class EntityBatches:
    """Batches by index: the same index gives the same batch."""

    def __init__(
        self,
        tx: Transactions,
        graph: EntityGraph,
        columns: tuple[str, ...],
        rows: NDArray[np.intp],
        settings: EntitySettings,
        seed: int,
    ) -> None:
        self._codes = np.stack([tx.entities[c] for c in columns], axis=1)
        self._label = tx.label
        self._settings, self._seed = settings, seed
        instants = graph.instant(tx.time[rows])
        self._parts = [rows[instants == instant] for instant in np.unique(instants)]
        self._graphs = [graph.snapshot(int(instant)) for instant in np.unique(instants)]

    def __call__(self, index: int) -> EntityBatch:
        """Return batch ``index``."""
        import torch

        rng = np.random.default_rng([self._seed, index])
        part = int(rng.integers(len(self._parts)))
        rows = self._parts[part]
        frauds = rows[self._label[rows] == 1]
        wanted = self._settings.events
        chosen = rng.choice(rows, wanted)
        if len(frauds):
            few = int(wanted * self._settings.fraud_share)
            chosen[:few] = rng.choice(frauds, few)
        codes = self._codes[chosen].astype(np.int64)
        swapped = codes.copy()
        column = int(rng.integers(codes.shape[1]))
        swapped[:, column] = rng.permutation(codes[:, column])
        label = (self._label[chosen] == 1).astype(np.float32)
        return EntityBatch(
            self._graphs[part],
            torch.from_numpy(codes),
            torch.from_numpy(swapped),
            torch.from_numpy(label),
        )


def entity_loss(model: nn.Module, batch: EntityBatch) -> tuple[Tensor, int]:
    """Return the summed link and fraud loss of a batch, and its number of events."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    encoder: EntitySage = model  # type: ignore[assignment]  # the loop knows modules only
    found = encoder(batch.graph)

    def pick(codes: Tensor) -> Tensor:
        kinds = encoder.config.columns
        return torch.stack([found[k][codes[:, i]] for i, k in enumerate(kinds)], dim=1)

    linked, fraud = encoder.decode(pick(batch.codes))
    loss = bce(fraud, batch.label, reduction="sum")
    if batch.codes.shape[1] > 1:
        apart, _ = encoder.decode(pick(batch.swapped))
        loss = loss + 0.5 * bce(linked, torch.ones_like(linked), reduction="sum")
        loss = loss + 0.5 * bce(apart, torch.zeros_like(apart), reduction="sum")
    return loss, len(batch.label)


def fit_entities(
    tx: Transactions,
    graph: EntityGraph,
    columns: tuple[str, ...],
    rows: NDArray[np.intp],
    settings: EntitySettings,
    *,
    seed: int,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: Path | None = None,
) -> EntitySage:
    """Train an encoder on labelled rows, each seen with the snapshot current at its time.

    Args:
        tx: The history.
        graph: Its graph.
        columns: Entity columns in order.
        rows: Labelled training rows.
        settings: Settings; ``embedding`` at least 1.
        seed: Seed of weights and batches.
        callbacks: Listeners of the loop.
        checkpoint_dir: Folder from which a killed run continues.
    """
    import torch

    from kernels.runtime.config import RunConfig
    from kernels.runtime.optimizer import OptimizerConfig
    from kernels.runtime.runner import run
    from models.entity_sage import EntitySage

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EntitySage(graph.shape(hidden=settings.hidden, embedding=settings.embedding))
    optimizer = OptimizerConfig(learning_rate=settings.learning_rate)
    config = RunConfig(steps=settings.steps, seed=seed, optimizer=optimizer)
    batches = EntityBatches(tx, graph, columns, rows, settings, seed)
    run(encoder, batches, entity_loss, config, callbacks, checkpoint_dir)
    return encoder
