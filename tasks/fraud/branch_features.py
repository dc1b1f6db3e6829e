"""Features of transactions that several branches hold, each computed from its branch's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tasks.fraud.features import FeatureSet, build_features

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions


def branch_features(tx: Transactions, home: ArrayLike, config: DatasetConfig) -> FeatureSet:
    """Compute every feature of every transaction from the past of its own branch.

    No row of another branch enters: neither its payments nor its labels. Shared is the list of
    values of categorical columns, which branches agree on beforehand as they do on the columns.

    Args:
        tx: Checked transactions in the order (time, event_id).
        home: int64 [n] branch of every row.
        config: What the columns mean.

    Returns:
        The features, in the order of ``tx``.

    Raises:
        ValueError: When there are no rows, or not one branch for each.
    """
    places = np.asarray(home, np.int64)
    if places.shape != (len(tx),) or not len(tx):
        raise ValueError(f"{len(tx)} rows need as many branches, not {list(places.shape)}")
    parts = [np.flatnonzero(places == place) for place in np.unique(places)]
    built = [build_features(tx.take(rows), config) for rows in parts]
    values = np.empty((len(tx), len(built[0].names)), np.float32)
    for rows, own in zip(parts, built, strict=True):
        values[rows] = own.values
    return FeatureSet(built[0].names, values, built[0].categories)
