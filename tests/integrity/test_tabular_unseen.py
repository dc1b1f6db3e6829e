"""Entities never seen before are scored through the declared cold-start defaults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.derive import NEVER
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.heads import MlpConfig, TreeConfig, fit_logistic, fit_mlp, fit_trees
from tasks.fraud.transactions import Transactions


@pytest.fixture(scope="module")
def with_strangers(bank: Transactions) -> Transactions:
    """The bank, whose last three rows have an unseen payer, an unseen payee, and both."""
    entities = {c: codes.copy() for c, codes in bank.entities.items()}
    index = dict(bank.index)
    columns = list(entities)
    for place, strangers in ((-3, columns[:1]), (-2, columns[1:]), (-1, columns)):
        for column in strangers:
            kind = bank.kinds[column]
            index[kind] = np.append(index[kind], f"new{place}{column}")
            entities[column][place] = len(index[kind]) - 1
    return replace(bank, entities=entities, index=index)


def test_strangers_get_defaults(with_strangers: Transactions, bank_config: DatasetConfig) -> None:
    features = build_features(with_strangers, bank_config)
    row = dict(zip(features.names, features.values[-1].tolist(), strict=True))
    for column in with_strangers.entities:
        assert row[f"{column}.n_30d"] == 1.0
        assert row[f"{column}.gap"] == np.float32(NEVER)
        assert row[f"{column}.since_fraud"] == np.float32(NEVER)
        assert row[f"{column}.last_label"] == -1.0
        assert row[f"{column}.risk_30d"] == row[f"{column}.z_30d"] == 0.0
        assert row[f"{column}.before_30d"] == pytest.approx(row["amount"])


def test_strangers_are_scored_by_every_head(
    bank: Transactions, with_strangers: Transactions, bank_config: DatasetConfig
) -> None:
    known: FeatureSet = build_features(bank, bank_config)
    values = build_features(with_strangers, bank_config).values
    trees = fit_trees(known.values, bank.label, TreeConfig(rounds=20, seeds=1, bins=255))
    mlp = fit_mlp(known.values, bank.label, MlpConfig(hidden=(8,), epochs=2, batch=256))
    for head in (trees, fit_logistic(known.values, bank.label), mlp):
        p = head.predict(values[-3:])
        assert np.isfinite(p).all()
        assert ((p > 0) & (p < 1)).all()


def test_an_amount_of_zero_is_scored(bank: Transactions, bank_config: DatasetConfig) -> None:
    free = replace(bank, amount=np.zeros_like(bank.amount))
    assert np.isfinite(build_features(free, bank_config).values).all()
