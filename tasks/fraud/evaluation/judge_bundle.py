"""Judges a finished bundle on the newest test window of any data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.fraud.evaluation.figures import result_to_json
from tasks.fraud.evaluation.protocol import (
    evaluate_fold,
    folds,
    instant,
    judged_rows,
    newest_test_start,
    protocol_for,
)
from tasks.fraud.score import bundle_features, score_transactions

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions


def judge_bundle(bundle: Bundle, tx: Transactions, config: DatasetConfig) -> dict[str, Any]:
    """Judge every head of a bundle.

    Args:
        bundle: The model.
        tx: Transactions with labels, history included.
        config: Dataset config; its split names the window.

    Returns:
        ``test`` (window), ``heads`` (name -> figures), ``active``, ``seen`` (the model learnt from
        these days).
    """
    protocol = protocol_for(config)
    split = config.split
    start = (
        instant(split.test_start) if split.test_start else newest_test_start(tx, split.test_days)
    )
    fold = folds(start, 1, protocol)[0]
    rows = judged_rows(tx, fold, protocol.entity)
    table = bundle_features(bundle, tx)
    heads = {}
    for head in sorted(bundle.heads, key=lambda h: h != bundle.active):
        score = score_transactions(bundle, tx, rows=rows, features=table, head=head)
        heads[head] = result_to_json(evaluate_fold(tx, fold, score, protocol, rows=rows))
    return {
        "test": fold.describe(),
        "heads": heads,
        "active": bundle.active,
        "seen": bundle.manifest.trained_until > fold.test_start,
    }
