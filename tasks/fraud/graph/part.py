"""The graph part of a fraud model: a net over mailboxes and entity embeddings.

It is fitted on the same rows as the trees. The trees of ``both`` read two signals of the net
beside the features. On training rows these signals are out of fold: each comes from a net that
was trained without the block of days the row lies in, so the trees meet in training what they
will meet in service.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.runtime.callbacks import Listen, nobody
from tasks.fraud.bundle.embeddings import Embeddings
from tasks.fraud.derive import event_names
from tasks.fraud.features import FeatureSet
from tasks.fraud.graph.inputs import History, Rows
from tasks.fraud.graph.mail import Mailboxes, mail_layout
from tasks.fraud.graph.model import (
    KNEE_QUANTILE,
    SIGNALS,
    GraphError,
    GraphModel,
    GraphSettings,
    fit_encoder,
    fit_net,
)
from tasks.fraud.graph.snapshots import EntityGraph, SnapshotConfig

if TYPE_CHECKING:
    from models.entity_sage import EntitySage
    from models.graph_net import GraphNet
    from tasks.explain.graph.nodes import GraphOptions
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.evaluation.protocol import Fold
    from tasks.fraud.graph.explain import TransactionExplainer
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)


class GraphPart:
    """A fitted graph part, bound to the history it was fitted on.

    Attributes:
        model: Net and encoder.
        alone: The net that reads mail, embeddings and the event itself, no entity state.
        train_rows: Rows it was fitted on, ascending.
        out_of_fold: float32 [len(train_rows), 2] signals of nets that did not see the row's block.
        as_of: Instant (epoch milliseconds) of the embeddings that ship.
    """

    def __init__(
        self,
        history: History,
        model: GraphModel,
        alone: GraphModel | None,
        train_rows: Rows,
        out_of_fold: NDArray[np.float32],
        as_of: int,
    ) -> None:
        self.model, self.alone = model, alone
        self.train_rows, self.out_of_fold = train_rows, out_of_fold
        self.as_of = as_of
        self._history = history

    @property
    def net(self) -> GraphNet:
        """The net (torch module)."""
        return self.model.net

    def hidden(self, rows: Rows) -> NDArray[np.float32]:
        """Return the signals that trees read, float32 [m, 2]; out of fold on training rows."""
        out = np.empty((len(rows), len(SIGNALS)), np.float32)
        place = np.searchsorted(self.train_rows, rows)
        place = np.minimum(place, len(self.train_rows) - 1)
        trained = self.train_rows[place] == rows
        out[trained] = self.out_of_fold[place[trained]]
        out[~trained] = self.model.signals(self._history, rows[~trained])
        return out

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Return the probability [m] that the graph part alone gives rows outside the training.

        Mail, embeddings and the event itself are all it reads, so that it can be compared with the
        trees on entity state. The net whose signals ``both`` reads sees the features, too.
        """
        if self.alone is None:
            raise GraphError("the graph part alone was not fitted; set network.alone = true")
        logit = self.alone.signals(_event_only(self._history), rows)[:, 0].astype(np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float64)

    def represent(self, tx: Transactions, features: FeatureSet, rows: Rows) -> NDArray[np.float32]:
        """Return the signals of rows of another history, float32 [m, 2]."""
        dataset, settings = self._history.graph.dataset, self._history.graph.config
        other = _history(tx, features, dataset, self._history.mail.layout.slots, settings)
        return self.model.signals(other, rows)

    def inputs(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return ``mail`` [m, T, d], ``mask`` [m, T], ``embeddings`` [m, C, E]."""
        return self.model.inputs(self._history, rows)

    def explainer(self, options: GraphOptions | None = None) -> TransactionExplainer:
        """Return what explains the shipped net's log-odds, partner by partner.

        On training rows the trees read the logits of other nets, see ``hidden``; what is explained
        is the net that ships.
        """
        from tasks.fraud.graph.explain import TransactionExplainer, typical

        history = self._history

        def own(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return history.features_of(rows), self.model.looked_up(history, rows)

        background = typical(history.features.names, history.mail.layout, *own(self.train_rows))
        return TransactionExplainer(self.net, history.tx, history.mail, own, background, options)

    def embeddings(self) -> Embeddings:
        """Return the embedding of every entity seen before ``as_of``."""
        return embed_entities(self.model.encoder, self._history.tx, self._history.graph, self.as_of)

    def to_onnx(self) -> bytes:
        """Return the net: features, mail, mask, embeddings -> signals [n, 2]."""
        from models.graph_net import export_onnx

        return export_onnx(self.net)

    def to_safetensors(self) -> bytes:
        """Return the weights of net and encoder, their shapes as JSON metadata."""
        from safetensors.torch import save

        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        shape: dict[str, Any] = {"net": asdict(self.net.config), "encoder": None}
        if self.model.encoder is not None:
            tensors |= {f"encoder.{k}": v for k, v in self.model.encoder.state_dict().items()}
            shape["encoder"] = asdict(self.model.encoder.config)
        content: bytes = save(
            {k: v.contiguous() for k, v in tensors.items()}, metadata={"shape": json.dumps(shape)}
        )
        return content


def fit_graph(
    tx: Transactions,
    features: FeatureSet,
    fold: Fold,
    config: DatasetConfig,
    *,
    settings: GraphSettings | None = None,
    listen: Listen = nobody,
    checkpoint_dir: Path | None = None,
) -> GraphPart:
    """Fit the graph part on the training rows of a fold; see ``fit_graph_rows``."""
    rows = fold.train_rows(tx)
    return fit_graph_rows(
        tx,
        features,
        config,
        rows,
        settings=settings,
        as_of=fold.test_start,
        listen=listen,
        checkpoint_dir=checkpoint_dir,
    )


def fit_graph_rows(
    tx: Transactions,
    features: FeatureSet,
    config: DatasetConfig,
    train_rows: Rows,
    *,
    settings: GraphSettings | None = None,
    as_of: int | None = None,
    listen: Listen = nobody,
    checkpoint_dir: Path | None = None,
) -> GraphPart:
    """Fit encoder and net on some rows, and once more per block for the out-of-fold signals.

    Args:
        tx: The whole history; rows before and after the training rows feed no weight.
        features: Its features.
        config: What the columns mean.
        train_rows: Labelled rows, ascending.
        settings: Settings; None: the defaults.
        as_of: Instant of the shipped embeddings; None: the last training row's.
        listen: Listeners by the name of the loop: ``graph.net``, ``graph.encoder``,
            ``block0.net`` ..., ``alone.net``.
        checkpoint_dir: Folder from which a killed fit continues.

    Raises:
        GraphError: When rows are unlabelled or hold too few frauds to be cross-fitted.
    """
    chosen = settings or GraphSettings()
    rows: Rows = np.asarray(train_rows, np.intp)
    history = _history(tx, features, config, chosen.slots, chosen.snapshots)
    blocks = _blocks(tx.label[rows], chosen.folds)

    def fit(name: str, part: Rows, seed: int) -> GraphModel:
        folder = checkpoint_dir / name if checkpoint_dir else None
        below = [folder / loop if folder else None for loop in ("encoder", "net")]
        encoder = fit_encoder(history, part, chosen, seed, listen(f"{name}.encoder"), below[0])
        return fit_net(history, part, chosen, seed, encoder, listen(f"{name}.net"), below[1])

    out_of_fold = np.empty((len(rows), len(SIGNALS)), np.float32)
    for number, block in enumerate(blocks):
        rest = np.concatenate([b for i, b in enumerate(blocks) if i != number])
        model = fit(f"block{number}", rows[rest], chosen.seed + 1 + number)
        out_of_fold[block] = model.signals(history, rows[block])
        logger.info("graph net without block %d of %d fitted", number + 1, len(blocks))
    model = fit("graph", rows, chosen.seed)
    knee = float(np.quantile(out_of_fold[:, 0], KNEE_QUANTILE))
    model.net.set_knee(knee)
    out_of_fold[:, 1] = np.maximum(out_of_fold[:, 0] - np.float32(knee), 0.0)
    alone = None
    if chosen.alone:
        folder = checkpoint_dir / "alone" if checkpoint_dir else None
        seed = chosen.seed + 1 + len(blocks)
        narrow = _event_only(history)
        alone = fit_net(narrow, rows, chosen, seed, model.encoder, listen("alone.net"), folder)
    instant = int(tx.time[rows[-1]]) if as_of is None else as_of
    return GraphPart(history, model, alone, rows, out_of_fold, instant)


def _event_only(history: History) -> History:
    """Return the history with no features but those of the event itself."""
    names = event_names()
    return replace(history, features=FeatureSet(names, history.features.select(names)))


def embed_entities(
    encoder: EntitySage | None, tx: Transactions, graph: EntityGraph, as_of: int
) -> Embeddings:
    """Return the embeddings of all entities seen before ``as_of``, by their original ids."""
    ids, vectors, default = {}, {}, {}
    found = graph.embed(encoder, as_of) if encoder is not None else {}
    for kind in dict.fromkeys(tx.kinds.values()):
        seen = graph.seen(kind, as_of)
        ids[kind] = tx.index[kind][seen]
        every = found.get(kind, np.zeros((len(seen), 0), np.float32))
        vectors[kind] = every[seen]
        # Unseen entities hold the declared default already, whichever of them is taken.
        default[kind] = every[~seen][0] if (~seen).any() else every.mean(axis=0)
    return Embeddings.build(ids, vectors, default)


def _history(
    tx: Transactions,
    features: FeatureSet,
    config: DatasetConfig,
    slots: int,
    snapshots: SnapshotConfig,
) -> History:
    mail = Mailboxes(tx, features, mail_layout(config, slots))
    return History(tx, features, mail, EntityGraph(tx, config, snapshots))


def _blocks(label: NDArray[np.int8], folds: int) -> list[Rows]:
    """Cut positions into blocks of days with equally many frauds."""
    if (label < 0).any():
        raise GraphError("unlabelled rows (-1) cannot be trained on; leave them out")
    frauds = np.flatnonzero(label == 1)
    if len(frauds) < 2 or len(frauds) == len(label):
        raise GraphError(
            f"{len(frauds)} frauds in {len(label)} training rows: a graph net needs both classes "
            "and at least 2 frauds; train on more days"
        )
    parts = np.array_split(frauds, min(folds, len(frauds)))
    cuts = [int(part[0]) for part in parts[1:]]
    blocks = list(np.split(np.arange(len(label), dtype=np.intp), cuts))
    legitimate = int((label == 0).sum())
    if any((label[block] == 0).sum() == legitimate for block in blocks):
        raise GraphError(
            "the frauds of the training rows follow each other without a legitimate row, so no net "
            "can be fitted without them; train on more days, or without the graph part"
        )
    return blocks
