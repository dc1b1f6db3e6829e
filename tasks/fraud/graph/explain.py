"""Why the graph net's log-odds of a transaction are what they are, partner by partner.

A transaction is the middle of a star: each partner of its entities' mailboxes is a neighbour, each
message an edge. A partner that is absent has left no message; own features and the embeddings of
the entities are compared with a typical transaction's. The values are those of
``tasks.explain.graph``: exact, in log-odds, and they add up to ``graph.logit``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.explain.background import Background
from tasks.explain.graph.inputs import GraphInputs
from tasks.explain.graph.nodes import GraphOptions, NodeExplainer, NodeExplanation
from tasks.fraud.graph.inputs import Rows
from tasks.fraud.graph.mail import Mailboxes, MailLayout

if TYPE_CHECKING:
    from models.graph_net import GraphNet
    from tasks.fraud.transactions import Transactions

HOUR_MS = 3_600_000
AGES = (("last hour", HOUR_MS), ("last day", 24 * HOUR_MS), ("last week", 168 * HOUR_MS))
PLAYERS = 10
IS_TRANSACTION = "is a transaction"

Floats = NDArray[np.float32]
Own = Callable[[Rows], tuple[Floats, Floats]]
"""Gives the features [m, F] and the entity embeddings [m, C, E] of transactions."""


class _Star(nn.Module):
    """The net over transactions that share their mail and differ in which messages are there.

    A node's features are: 1 for a transaction and 0 for a partner, the features, the embeddings.
    """

    def __init__(self, net: GraphNet, mail: NDArray[np.float32]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mail", torch.from_numpy(mail))
        self.train(net.training)

    def forward(self, x: Tensor, edge_index: Tensor, slot: Tensor) -> Tensor:
        """Return the log-odds of transactions and 0 for partners ``[n]``."""
        shape, mail = self.net.config, self.get_buffer("mail")
        asked = x[:, 0] > 0
        place = torch.cumsum(asked, 0) - 1
        mask = torch.zeros(int(asked.sum()), len(mail), dtype=torch.bool)
        mask[place[edge_index[1]], slot] = True
        own = x[asked, 1:]
        features = own[:, : shape.features]
        sizes = (len(own), shape.columns, shape.embedding)
        embeddings = own[:, shape.features :].reshape(sizes)
        out = torch.zeros(len(x))
        tokens = mail.expand(len(mask), *mail.shape)
        out[asked] = self.net(features, tokens, mask, embeddings)[:, 0]
        return out


@dataclass(frozen=True, eq=False)
class TransactionExplainer:
    """Explains ``graph.logit`` of transactions.

    Attributes:
        net: The net, in evaluation mode.
        tx: All transactions.
        mail: Their mailboxes.
        own: What a transaction brings itself.
        background: What that is compared with, see ``typical``.
        options: How; the default looks at ten players and buckets of an hour, a day and a week.
    """

    net: GraphNet
    tx: Transactions
    mail: Mailboxes
    own: Own
    background: Background
    options: GraphOptions | None = None

    def explain(self, rows: Rows) -> list[NodeExplanation]:
        """Explain transactions.

        The players: "own features", "past of ..." for the embedding of each entity, partners by
        key and last time, and groups of partners by mailbox and age.

        Raises:
            UnstableScoreError: When the net is in training mode.
            tasks.explain.errors.ExplanationError: When there is no explanation.
        """
        mail, _ = self.mail(rows)
        index = self.mail.index(rows)
        x = _joined(*self.own(rows))
        return [self._explained(*one) for one in zip(rows, mail, index, x, strict=True)]

    def _explained(
        self,
        row: np.intp,
        mail: NDArray[np.float32],
        index: NDArray[np.int32],
        own: NDArray[np.float32],
    ) -> NodeExplanation:
        layout, tx, config = self.mail.layout, self.tx, self.net.config
        slot = np.flatnonzero(index.ravel() >= 0)
        section, earlier = slot // layout.slots, index.ravel()[slot]
        keys = [self._partner(int(s), int(e)) for s, e in zip(section, earlier, strict=True)]
        number: dict[tuple[int, str], int] = {}
        source = [number.setdefault(pair, 1 + len(number))
                  for pair in zip(section.tolist(), keys, strict=True)]  # fmt: skip
        x = np.zeros((1 + len(number), len(own)), np.float32)
        x[0] = own
        graph = GraphInputs(
            torch.from_numpy(x),
            torch.tensor([source, [0] * len(source)], dtype=torch.long),
            {"slot": torch.from_numpy(slot)},
            section,
            tuple(
                f"{layout.columns[r]}, earlier as {layout.columns[s]}"
                for r, s in zip(layout.reader, layout.section, strict=True)
            ),
            tx.time[earlier],
            int(tx.time[row]),
            _clock,
            ["transaction", *(key for _, key in number)],
        )
        first = 1 + config.features
        past = {
            f"past of {column}": range(first + c * config.embedding,
                                       first + (c + 1) * config.embedding)
            for c, column in enumerate(layout.columns) if config.embedding
        }  # fmt: skip
        options = self.options or GraphOptions(PLAYERS, AGES, past)
        star = _Star(self.net, mail)
        explainer = NodeExplainer(star, graph, 1, background=self.background, options=options)
        return explainer.explain(0)

    def _partner(self, section: int, earlier: int) -> str:
        """Return the key of who stood on the other side of an earlier transaction."""
        layout, tx = self.mail.layout, self.tx
        if len(layout.columns) == 1:
            return f"transaction {tx.original_ids[earlier]}"
        column = layout.columns[(layout.section[section] + 1) % len(layout.columns)]
        return str(tx.index[tx.kinds[column]][tx.entities[column][earlier]])


def typical(
    names: Sequence[str], layout: MailLayout, features: Floats, embeddings: Floats
) -> Background:
    """Return the background of a typical transaction: medians over rows, float32 ``[1, ...]``.

    Args:
        names: Of the features.
        layout: Of the mail.
        features: Of rows to take the medians of ``[m, F]``.
        embeddings: The same ``[m, C, E]``; their number may be another.
    """
    past = [f"{column}.{i}" for column in layout.columns for i in range(embeddings.shape[2])]
    middle = _joined(*(np.median(x, axis=0, keepdims=True) for x in (features, embeddings)))
    return Background((IS_TRANSACTION, *names, *past), middle)


def _joined(features: Floats, embeddings: Floats) -> Floats:
    """Return what a transaction brings itself: 1, features, embeddings ``[m, 1 + F + C E]``."""
    ones = np.ones((len(features), 1), np.float32)
    parts = [ones, features, embeddings.reshape(len(features), -1)]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _clock(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
