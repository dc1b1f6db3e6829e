"""Scores transactions with a bundle, from the raw rows: features, mail, embeddings, head.

What a bundle needs beside the rows is in the bundle (dataset config, known categories, entity
embeddings), so two bundles with different features can score the same transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError
from tasks.fraud.evaluation.protocol import DAY_MS

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.transactions import Transactions

CHUNK = 65_536
"""Rows scored at a time; bounds the memory of mail and embeddings."""


def last_days(tx: Transactions, days: float) -> NDArray[np.intp]:
    """Return the rows of the last ``days`` whole days of the data, ascending; 0 days: all."""
    end = (int(tx.time[-1]) // DAY_MS + 1) * DAY_MS
    start = end - round(days * DAY_MS) if days > 0 else int(tx.time[0])
    return np.flatnonzero(tx.time >= start)


def bundle_features(bundle: Bundle, tx: Transactions) -> FeatureSet:
    """Build the features a bundle reads, for all rows of ``tx``."""
    from tasks.fraud.features import build_features

    categories = {c: tuple(values) for c, values in bundle.categories.items()}
    return build_features(tx, bundle.config, categories=categories)


def fits(bundle: Bundle, features: FeatureSet) -> bool:
    """Tell whether features mean what the bundle was trained on: names and codes of categories."""
    codes = {column: list(values) for column, values in features.categories.items()}
    known = {column: list(values) for column, values in bundle.categories.items()}
    return features.names == bundle.feature_names and codes == known


def score_transactions(
    bundle: Bundle,
    tx: Transactions,
    *,
    rows: NDArray[np.intp] | None = None,
    features: FeatureSet | None = None,
    head: str = "",
) -> NDArray[np.float64]:
    """Return calibrated fraud probabilities.

    Args:
        bundle: The model.
        tx: All transactions, history included: state is read from the rows before.
        rows: Rows to score, ascending; None: all.
        features: Features of all rows if they are at hand, built with the bundle's config and
            categories.
        head: Head that scores; empty: the active one.

    Returns:
        float64, one probability per row.

    Raises:
        BundleError: When the data cannot give what the head reads.
    """
    check_entities(bundle, tx)
    table = features if features is not None else bundle_features(bundle, tx)
    if not fits(bundle, table):
        raise BundleError(
            f"the features at hand are not those of the model {bundle.config.name!r} (other names "
            "or other codes of categories); build them with the bundle's config and categories"
        )
    values = table.values
    chosen = np.arange(len(tx), dtype=np.intp) if rows is None else rows
    graph = GraphInputs(bundle, tx, table) if bundle.needs_graph(head) else None
    scores = np.empty(len(chosen), dtype=np.float64)
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        inputs: dict[str, NDArray[Any]] = graph.of(part) if graph else {}
        block = np.ascontiguousarray(values[part])
        scores[start : start + CHUNK] = bundle.score(block, head=head, **inputs)
    return scores


def check_entities(bundle: Bundle, tx: Transactions) -> None:
    """Refuse data whose entity columns are not those of the model."""
    wanted = [e.column for e in bundle.config.entities]
    missing = sorted(set(wanted) - set(tx.entities))
    if missing:
        raise BundleError(
            f"the model {bundle.config.name!r} reads entity column {missing[0]!r}, which the data "
            "lacks; read the file with the bundle's dataset config"
        )


class GraphInputs:
    """Mail and embeddings of rows, for heads with a graph part.

    Attributes:
        mail: The mailboxes.
        embeddings: float32 [n, C, E], of all rows.
    """

    def __init__(self, bundle: Bundle, tx: Transactions, features: FeatureSet) -> None:
        from tasks.fraud.graph.mail import Mailboxes, mail_layout

        self.embeddings = bundle.embeddings.for_transactions(tx)
        layout = mail_layout(bundle.config)
        wanted = bundle.mail_length
        if wanted:
            # The settings of training may have asked for other than the usual number of slots.
            layout = mail_layout(bundle.config, wanted // layout.groups)
        self.mail = Mailboxes(tx, features, layout)

    def of(self, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Return mail, mask and embeddings of some rows."""
        mail, mask = self.mail(rows)
        return {"mail": mail, "mask": mask, "embeddings": self.embeddings[rows]}
