"""Mail of a history: the message each transaction leaves, and what its mailboxes hold.

A transaction reads the mailbox of each of its entities (every role of the entity's kind: an
account sees what it sent and what it received), then leaves one message in each. The message
vector holds a few of the transaction's own features, so a reader sees a summary of its
counterpart: two hops without a graph query. Labels enter through delayed features alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kernels.ops.mail_tokens import Messages
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

MESSAGE_WIDTH = 8
"""Most entries of a message vector; the state block has room for no more."""

MESSAGE_FEATURES = ("ratio_30d", "frauds_30d", "n_30d", "level_1d_30d")
"""Features of an entity column that its messages carry, most telling first."""


class MailError(ValueError):
    """A feature table that mail cannot be made from; the message names the fix."""


@dataclass(frozen=True, slots=True)
class MailLayout:
    """Which mailbox sections a transaction reads.

    Attributes:
        columns: Entity columns, in the config's order.
        reader: Per section, the position of the column whose entity's mailbox it belongs to.
        section: Per section, the position of the column in which that entity stood.
        features: Names of the features in a message vector.
        slots: Messages per section.
    """

    columns: tuple[str, ...]
    reader: tuple[int, ...]
    section: tuple[int, ...]
    features: tuple[str, ...]
    slots: int

    @property
    def groups(self) -> int:
        """Sections a transaction reads (G)."""
        return len(self.reader)


def mail_layout(config: DatasetConfig, slots: int = 8) -> MailLayout:
    """Return the sections and the message vector of a dataset config."""
    columns = tuple(e.column for e in config.entities)
    pairs = [
        (r, s)
        for r, reader in enumerate(config.entities)
        for s, section in enumerate(config.entities)
        if reader.kind == section.kind
    ]
    each = max(min(MESSAGE_WIDTH // len(columns), len(MESSAGE_FEATURES)), 1)
    names = [f"{c}.{f}" for c in columns for f in MESSAGE_FEATURES[:each]]
    return MailLayout(
        columns,
        tuple(r for r, _ in pairs),
        tuple(s for _, s in pairs),
        tuple(names[:MESSAGE_WIDTH]),
        slots,
    )


def message_vectors(features: FeatureSet, layout: MailLayout) -> NDArray[np.float32]:
    """Return the message vector every transaction leaves, float32 [n, W].

    Raises:
        MailError: When the feature table lacks one of the features.
    """
    missing = sorted(set(layout.features) - set(features.names))
    if missing:
        raise MailError(
            f"the feature table lacks {missing[0]!r}, which messages carry; "
            "build it with build_features and the default windows"
        )
    # asinh: no model-specific standardisation may enter bytes that outlive a model.
    # In float64, so that a stream in another language comes to the same float32.
    return np.arcsinh(features.select(layout.features).astype(np.float64)).astype(np.float32)


class Mailboxes:
    """The mail of every transaction of a history, gathered on demand.

    Attributes:
        layout: Sections and message vector.
        messages: Every transaction as a message.
    """

    def __init__(self, tx: Transactions, features: FeatureSet, layout: MailLayout) -> None:
        from kernels.ops.mail_tokens import Messages

        self.layout = layout
        entity = _numbered(tx, layout.columns)
        # With one entity column there is no counterpart; with more, the next column's entity.
        many = len(layout.columns) > 1
        counterpart = np.roll(entity, -1, axis=1) if many else np.full_like(entity, -1)
        vectors = message_vectors(features, layout)
        self.messages: Messages = Messages(tx.time, tx.amount, entity, counterpart, vectors)
        self._index = _indexes(tx, layout)
        self._reader = np.array(layout.reader, np.int64)
        self._section = np.array(layout.section, np.int64)

    def index(self, rows: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return which earlier rows each section of ``rows`` holds, int32 [m, G, K]."""
        parts = [self._index[g][rows] for g in range(self.layout.groups)]
        return np.stack(parts, axis=1)

    def __call__(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return mail float32 [m, G * K, 3 + W] and mask bool [m, G * K] of some rows."""
        from kernels.ops.mail_tokens import gather_tokens

        chosen = np.ascontiguousarray(rows, np.int64)
        index = np.ascontiguousarray(self.index(rows))
        tokens, mask = gather_tokens(chosen, index, self._reader, self._section, self.messages)
        return tokens, mask > 0


def _numbered(tx: Transactions, columns: tuple[str, ...]) -> NDArray[np.int64]:
    """Return int64 [n, C], entities numbered across kinds, so that kinds never match."""
    first: dict[str, int] = {}
    total = 0
    for column in columns:
        kind = tx.kinds[column]
        if kind not in first:
            first[kind] = total
            total += len(tx.index[kind])
    parts = [tx.entities[c].astype(np.int64) + first[tx.kinds[c]] for c in columns]
    return np.stack(parts, axis=1)


def _indexes(tx: Transactions, layout: MailLayout) -> list[NDArray[np.int32]]:
    """Return per section int32 [n, K], views into one index per kind."""
    from kernels.entity_state.mail import mail_index

    by_kind: dict[str, list[str]] = {}
    for column in layout.columns:
        by_kind.setdefault(tx.kinds[column], []).append(column)
    found = {}
    for kind, columns in by_kind.items():
        keys = np.stack([tx.entities[c] for c in columns], axis=1)
        index = mail_index(keys, len(tx.index[kind]), layout.slots)
        for r, reader in enumerate(columns):
            for s, section in enumerate(columns):
                found[reader, section] = index[:, r, s]
    pairs = zip(layout.reader, layout.section, strict=True)
    return [found[layout.columns[r], layout.columns[s]] for r, s in pairs]
