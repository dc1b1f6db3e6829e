"""Inputs of the graph net for a history, and batches of them for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.fraud.graph.mail import Mailboxes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.fraud.features import FeatureSet
    from tasks.fraud.graph.snapshots import EntityGraph
    from tasks.fraud.transactions import Transactions

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class History:
    """A history ready to be read by graph nets.

    Attributes:
        tx: Checked transactions.
        features: Their features.
        mail: Their mailboxes.
        graph: Their entity graph.
    """

    tx: Transactions
    features: FeatureSet
    mail: Mailboxes
    graph: EntityGraph

    def features_of(self, rows: Rows) -> NDArray[np.float32]:
        """Return float32 [m, F]."""
        return np.ascontiguousarray(self.features.values[rows])


@dataclass(frozen=True, slots=True)
class NetBatch:
    """Inputs and labels of one micro-batch (see ``models.graph_net``).

    Attributes:
        inputs: Features, mail, mask, embeddings.
        label: float32 [m].
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    label: Tensor


class NetBatches:
    """Batches by index: a few frauds and many legitimate rows, each class in shuffled rounds.

    Args:
        history: Where inputs come from.
        rows: int [m] labelled training rows, ascending.
        embeddings: float32 [m, C, E] of those rows.
        size: Rows of a batch.
        negatives: Legitimate rows per fraud.
        seed: Seed of the shuffles.
    """

    def __init__(
        self,
        history: History,
        rows: Rows,
        embeddings: NDArray[np.float32],
        *,
        size: int,
        negatives: int,
        seed: int,
    ) -> None:
        self._history, self._rows, self._embeddings = history, rows, embeddings
        label = history.tx.label[rows] == 1
        self._label = label.astype(np.float32)
        self._classes = [np.flatnonzero(~label), np.flatnonzero(label)]
        frauds = max(round(size / (negatives + 1)), 1)
        self._counts = [size - frauds, frauds]
        self._seed = seed
        self._shuffled: dict[int, tuple[int, Rows]] = {}

    @property
    def prior(self) -> float:
        """Shift of the log-odds that undoes the sampling."""
        shares = [len(c) / n for c, n in zip(self._classes, self._counts, strict=True)]
        return float(np.log(shares[1] / shares[0]))

    def __call__(self, index: int) -> NetBatch:
        """Return batch ``index``."""
        import torch

        chosen = np.concatenate([self._draw(which, index) for which in (0, 1)])
        rows = self._rows[chosen]
        mail, mask = self._history.mail(rows)
        arrays = (self._history.features_of(rows), mail, mask, self._embeddings[chosen])
        features, mail_, mask_, embeddings = (torch.from_numpy(a) for a in arrays)
        label = torch.from_numpy(self._label[chosen])
        return NetBatch((features, mail_, mask_, embeddings), label)

    def _draw(self, which: int, index: int) -> Rows:
        """Return the ``index``-th portion of a class; every round is a new shuffle of it all."""
        count, pool = self._counts[which], self._classes[which]
        position = index * count + np.arange(count)
        rounds = position // len(pool)
        parts = [
            self._shuffle(which, int(r))[position[rounds == r] % len(pool)]
            for r in np.unique(rounds)
        ]
        return np.concatenate(parts)

    def _shuffle(self, which: int, number: int) -> Rows:
        kept = self._shuffled.get(which)
        if kept is None or kept[0] != number:
            rng = np.random.default_rng([self._seed, which, number])
            kept = (number, rng.permutation(self._classes[which]))
            self._shuffled[which] = kept
        return kept[1]


def net_loss(model: nn.Module, batch: NetBatch) -> tuple[Tensor, int]:
    """Return the summed log-loss of a batch on the sampled prior, and its number of rows."""
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    prior = model.get_buffer("prior")
    logit = model(*batch.inputs)[:, 0] - prior
    return bce(logit, batch.label, reduction="sum"), len(batch.label)
