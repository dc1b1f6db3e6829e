"""A planted leak lifts the figures above what the data can give, and the alarm stops the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.dataset import DatasetConfig, find_config
from tasks.fraud.evaluation.leak_alarm import LeakSuspected, check_leak
from tasks.fraud.evaluation.protocol import (
    FoldResult,
    evaluate_fold,
    folds,
    judged_rows,
    newest_test_start,
    protocol_for,
)
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.transactions import Transactions

RULES = protocol_for(find_config("handbook"), train_days=20)
"""The delay of the protocol is seven days, whatever the features do."""


@pytest.fixture(scope="module")
def table() -> pa.Table:
    bank = CardsConfig(cards=1500, terminals=3000, days=70, seed=5)
    return pa.Table.from_batches(list(simulate_cards(bank)), CARDS_SCHEMA)


def judge(tx: Transactions, config: DatasetConfig, **extra: np.ndarray) -> FoldResult:
    values = build_features(tx, config).values
    values = np.column_stack([values, *extra.values()]).astype(np.float32)
    fold = folds(newest_test_start(tx, 7), 1, RULES)[0]
    train, rows = fold.train_rows(tx), judged_rows(tx, fold, RULES.entity)
    config_trees = TreeConfig(rounds=60, learning_rate=0.1, seeds=1, bins=511)
    head = fit_trees(values[train], tx.label[train], config_trees)
    return evaluate_fold(tx, fold, head.predict(values[rows]), RULES, rows=rows)


@pytest.fixture(scope="module")
def honest(table: pa.Table, bank_config: DatasetConfig) -> FoldResult:
    return judge(check(table, bank_config, "simulated").transactions, bank_config)


def test_honest_features_pass(honest: FoldResult) -> None:
    check_leak([honest], RULES)
    assert honest.ap > 0.5


def test_labels_without_delay_are_caught(
    table: pa.Table, bank_config: DatasetConfig, honest: FoldResult
) -> None:
    eager = replace(bank_config, label_delay_days=0)
    leaked = judge(check(table, eager, "simulated").transactions, eager)
    assert leaked.ap > honest.ap + 0.05
    with pytest.raises(LeakSuspected, match="AP"):
        check_leak([leaked], RULES)


def test_a_column_made_from_the_label_is_caught(
    table: pa.Table, bank_config: DatasetConfig
) -> None:
    tx = check(table, bank_config, "simulated").transactions
    hint = tx.label + np.random.default_rng(3).normal(0, 0.2, len(tx))
    with pytest.raises(LeakSuspected, match=r"AP .* and mean AUC"):
        check_leak([judge(tx, bank_config, hint=hint)], RULES)
