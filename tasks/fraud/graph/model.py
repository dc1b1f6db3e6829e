"""The graph model without a history: settings, net and encoder, and how they are fitted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.graph.entity_training import EntitySettings, fit_entities
from tasks.fraud.graph.inputs import History, NetBatches, Rows, net_loss
from tasks.fraud.graph.snapshots import SnapshotConfig

if TYPE_CHECKING:
    from kernels.runtime.callbacks import Callback
    from models.entity_sage import EntitySage
    from models.graph_net import GraphNet

SIGNALS = ("graph.logit", "graph.above_knee")
"""What the trees read beside the features."""

KNEE_QUANTILE = 0.98
_CHUNK = 8_192


class GraphError(ValueError):
    """Rows that a graph net cannot learn from; the message names the fix."""


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Settings of the graph part; the defaults were chosen on other seeds than those reported.

    Attributes:
        steps: Optimizer steps of the net.
        batch: Rows per step.
        negatives: Legitimate rows per fraud in a batch.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        hidden: Width of a message inside the attention.
        heads: Attention heads.
        slots: Messages read per mailbox section.
        dropout: Share of units dropped in training.
        folds: Blocks of the out-of-fold signals.
        alone: Whether a net without entity state is fitted, too, to be judged on its own.
        entities: Settings of the entity embeddings.
        snapshots: How snapshots of the entity graph are taken.
        seed: Seed of weights and batches.
    """

    steps: int = 800
    batch: int = 512
    negatives: int = 30
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    hidden: int = 48
    heads: int = 2
    slots: int = 8
    dropout: float = 0.1
    folds: int = 3
    alone: bool = True
    entities: EntitySettings = field(default_factory=EntitySettings)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.folds < 2 or self.negatives < 1 or self.batch < 2:
            raise GraphError("graph.folds and graph.batch must be at least 2, negatives at least 1")


@dataclass(frozen=True, slots=True)
class GraphModel:
    """A net and the encoder whose embeddings it reads; knows no history.

    Attributes:
        net: The net (torch module).
        encoder: The entity encoder, None without embeddings.
    """

    net: GraphNet
    encoder: EntitySage | None

    def inputs(self, history: History, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return ``mail`` [m, T, d], ``mask`` [m, T] and ``embeddings`` [m, C, E] of some rows."""
        mail, mask = history.mail(rows)
        return {"mail": mail, "mask": mask, "embeddings": self.looked_up(history, rows)}

    def looked_up(self, history: History, rows: Rows) -> NDArray[np.float32]:
        """Return the embeddings current at each row, float32 [m, C, E]."""
        if self.encoder is None:
            return np.zeros((len(rows), self.net.config.columns, 0), np.float32)
        return history.graph.lookup(self.encoder, rows)

    def signals(self, history: History, rows: Rows) -> NDArray[np.float32]:
        """Return the net's signals, float32 [m, 2]."""
        import torch

        out = np.empty((len(rows), len(SIGNALS)), np.float32)
        embeddings = self.looked_up(history, rows)
        with torch.no_grad():
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                mail, mask = history.mail(rows[part])
                arrays = (history.features_of(rows[part]), mail, mask, embeddings[part])
                out[part] = self.net(*(torch.from_numpy(a) for a in arrays)).numpy()
        return out


def fit_encoder(
    history: History,
    rows: Rows,
    settings: GraphSettings,
    seed: int,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> EntitySage | None:
    """Fit an entity encoder; None where the settings want no embeddings."""
    if not settings.entities.embedding:
        return None
    return fit_entities(
        history.tx,
        history.graph,
        history.mail.layout.columns,
        rows,
        settings.entities,
        seed=seed,
        callbacks=callbacks,
        checkpoint_dir=folder,
    )


def fit_net(
    history: History,
    rows: Rows,
    settings: GraphSettings,
    seed: int,
    encoder: EntitySage | None,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> GraphModel:
    """Fit a net on the features, mail and embeddings of some rows."""
    import torch

    from kernels.runtime.checkpoint import CheckpointConfig
    from kernels.runtime.config import RunConfig
    from kernels.runtime.optimizer import OptimizerConfig
    from kernels.runtime.runner import run
    from models.graph_net import GraphNet, GraphNetConfig
    from models.mail_attention import MailAttentionConfig

    layout = history.mail.layout
    mail = MailAttentionConfig(
        layout.groups,
        layout.slots,
        len(layout.features),
        hidden=settings.hidden,
        heads=settings.heads,
    )
    shape = GraphNetConfig(
        len(history.features.names),
        mail,
        len(layout.columns),
        settings.entities.embedding,
        dropout=settings.dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GraphModel(GraphNet(shape), encoder)
    batches = NetBatches(
        history,
        rows,
        model.looked_up(history, rows),
        size=settings.batch,
        negatives=settings.negatives,
        seed=seed,
    )
    x = np.arcsinh(history.features.values[rows])
    vectors = history.mail.messages.vector[rows]
    model.net.set_scales(_scale(x), _scale(vectors), batches.prior)
    config = RunConfig(
        steps=settings.steps,
        seed=seed,
        optimizer=OptimizerConfig(
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        checkpoint=CheckpointConfig(every=max(settings.steps // 4, 1) if folder else 0),
    )
    run(model.net, batches, net_loss, config, callbacks, folder)
    return model


def _scale(values: NDArray[np.float32]) -> tuple[Any, Any]:
    """Return mean and standard deviation per column as float32 tensors."""
    import torch

    mean = values.mean(axis=0, dtype=np.float64)
    deviation = values.std(axis=0, dtype=np.float64)
    pair = (mean, deviation)
    return tuple(torch.from_numpy(v.astype(np.float32)) for v in pair)  # type: ignore[return-value]  # two by construction
