"""An entity without a past is scored by the graph path through its declared default."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.fraud.evaluation.protocol import DAY_MS
from tasks.fraud.features import build_features
from tasks.fraud.graph import GraphSettings, fit_graph_rows
from tasks.fraud.graph.entity_training import EntitySettings


@pytest.fixture(scope="module")
def part(bank, bank_config):
    features = build_features(bank, bank_config)
    rows = np.flatnonzero(bank.time < bank.time[0] + 35 * DAY_MS)
    entities = EntitySettings(steps=4, events=64, hidden=8, embedding=4)
    settings = GraphSettings(steps=10, batch=64, negatives=7, hidden=8, folds=2, entities=entities)
    return fit_graph_rows(bank, features, bank_config, rows, settings=settings)


@pytest.mark.parametrize("unseen", [("customer",), ("terminal",), ("customer", "terminal")])
def test_rows_of_unseen_entities_are_scored_by_the_default(part, bank, bank_config, unseen):
    kinds = {c: bank.kinds[c] for c in unseen}
    index = dict(bank.index) | {k: np.append(bank.index[k], "stranger") for k in kinds.values()}
    entities = {c: codes.copy() for c, codes in bank.entities.items()}
    row = len(bank) - 1
    for column in unseen:
        entities[column][row] = len(index[kinds[column]]) - 1
    tx = replace(bank, index=index, entities=entities)
    features = build_features(tx, bank_config)
    signals = part.represent(tx, features, np.array([row]))
    assert signals.shape == (1, 2)
    assert np.isfinite(signals).all()
    shipped = part.embeddings()
    for position, column in enumerate(bank.entities):
        if column not in unseen:
            continue
        vectors = shipped.kinds[bank.kinds[column]]
        assert np.array_equal(vectors.lookup(np.array(["stranger"]))[0], vectors.default)
        assert position < part.net.config.columns
