"""A model bundle made ready to score transactions as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError
from tasks.fraud.online.feature_rows import FeatureRows
from tasks.fraud.online.head import FastHead
from tasks.fraud.online.keyed_vectors import KeyedVectors
from tasks.fraud.online.rows import OnlineRows

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle


class OnlineModel:
    """Scores rows with the active head of a bundle, or with another of its heads.

    Attributes:
        bundle: The bundle.
        layout: Mailbox sections a row reads (``tasks.fraud.graph.mail``).
        needs_mail: Whether the active head reads mail.
        needs_keys: Whether it wants to know the entities of a row: for mail or embeddings.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Prepare the lookups.

        Raises:
            BundleError: When the bundle reads more messages than a state block keeps.
        """
        from kernels.entity_state.spec import StateSpec
        from tasks.fraud.graph.mail import mail_layout

        self.bundle = bundle
        self.categories = {c: tuple(values) for c, values in bundle.categories.items()}
        self.layout = mail_layout(bundle.config)
        wanted = bundle.mail_length
        if wanted:
            self.layout = mail_layout(bundle.config, wanted // self.layout.groups)
        if self.layout.slots > StateSpec().mail_slots:
            raise BundleError(
                f"{bundle.folder}: the model reads {self.layout.slots} messages per mailbox, a "
                f"state block keeps {StateSpec().mail_slots}; train with as many at most"
            )
        self.needs_mail = "mail" in bundle.inputs()
        self.needs_keys = self.needs_mail or "embeddings" in bundle.inputs()
        self._vectors: dict[str, KeyedVectors] = {}
        self._features = FeatureRows(bundle.config, self.categories)
        self._heads: dict[str, FastHead] = {}

    def features(self, rows: OnlineRows) -> NDArray[np.float32]:
        """Return float32 [n, F] as the heads read them."""
        return self._features(rows)

    def head(self, name: str = "") -> FastHead:
        """Return a head ready to score, loaded on first use.

        Raises:
            BundleError: When the bundle has no such head, or its two forms score differently.
        """
        wanted = name or self.bundle.active
        if wanted not in self._heads:
            self._heads[wanted] = FastHead.load(self.bundle, wanted, reasons=False)
        return self._heads[wanted]

    def inputs(
        self, rows: OnlineRows, features: NDArray[np.float32], head: str = ""
    ) -> dict[str, NDArray[Any]]:
        """Return what a head reads, by input name.

        Raises:
            BundleError: When the rows lack mailboxes or keys the head needs, or two entities of
                the bundle have the same key.
        """
        wanted = self.bundle.inputs(head)
        feed: dict[str, NDArray[Any]] = {"features": features}
        if "mail" in wanted:
            feed["mail"], feed["mask"] = self._tokens(rows)
        if "embeddings" in wanted:
            feed["embeddings"] = self.embeddings(rows)
        return feed

    def score(
        self, rows: OnlineRows, features: NDArray[np.float32] | None = None, head: str = ""
    ) -> NDArray[np.float64]:
        """Return calibrated fraud probabilities, float64 [n].

        Args:
            rows: The transactions.
            features: Their features if they are at hand.
            head: Head that scores; empty: the active one.

        Raises:
            BundleError: When the rows lack what the head reads.
        """
        table = self.features(rows) if features is None else features
        ready = self.head(head)
        return ready.score(ready.inputs(**self.inputs(rows, table, head)))

    def embeddings(self, rows: OnlineRows) -> NDArray[np.float32]:
        """Return float32 [n, C, E], the embedding of every entity column."""
        if rows.keys is None:
            raise BundleError("the head reads embeddings: the rows must carry their entities' keys")
        columns = zip(self.bundle.config.entities, rows.keys.T, strict=True)
        return np.stack([self._of(e.kind).lookup(keys) for e, keys in columns], axis=1)

    def _of(self, kind: str) -> KeyedVectors:
        if kind not in self._vectors:
            self._vectors[kind] = KeyedVectors.of(self.bundle, kind)
        return self._vectors[kind]

    def _tokens(self, rows: OnlineRows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        from kernels.ops.mail_tokens import relate_many

        if rows.mail is None or rows.keys is None:
            raise BundleError(
                "the head reads mail: the rows must carry their mailboxes and entities' keys"
            )
        mail, slots = rows.mail, self.layout.slots
        tokens, mask = relate_many(
            rows.time,
            rows.amount,
            rows.keys,
            np.array(self.layout.reader, np.int64),
            mail.time[:, :, :slots],
            mail.amount[:, :, :slots],
            mail.counterpart[:, :, :slots],
            mail.vector[:, :, :slots],
            mail.present[:, :, :slots],
        )
        return tokens, mask > 0
