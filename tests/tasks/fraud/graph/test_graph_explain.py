"""Explained transactions: judged by Shapley's formula on the net's own inputs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.explain.errors import UnstableScoreError
from tasks.explain.graph.links import edge_values
from tasks.explain.graph.nodes import GraphOptions
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.features import build_features
from tasks.fraud.graph import GraphSettings, fit_graph_rows
from tasks.fraud.graph.entity_training import EntitySettings
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import TransfersConfig, simulate_transfers

DATASETS = Path(__file__).resolve().parents[4] / "tasks" / "fraud" / "datasets"
SMALL = GraphSettings(
    steps=20, batch=64, negatives=7, hidden=8, folds=2, alone=False,
    entities=EntitySettings(steps=4, events=64, hidden=8, embedding=4),
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    config = DatasetConfig.from_toml(DATASETS / "transfers.toml")
    network = TransfersConfig(accounts=60, days=60, rings=5, seed=2)
    tx = check(pa.Table.from_batches(simulate_transfers(network)), config, "x").transactions
    rows = np.arange(500, len(tx) - 500)
    part = fit_graph_rows(tx, build_features(tx, config), config, rows, settings=SMALL)
    return tx, part, part.explainer()


def test_values_add_up_to_the_logit_and_name_partners(fitted):
    tx, part, explainer = fitted
    rows = np.arange(len(tx) - 5, len(tx))
    found = explainer.explain(rows)
    logits = part.hidden(rows)[:, 0]
    for explained, logit in zip(found, logits, strict=True):
        one = explained.found
        assert one.base + one.values.sum() == pytest.approx(logit, abs=1e-4)
        assert one.players[:3] == ("past of sender", "past of receiver", "own features")
        assert len(one.players) <= 10
        alone = [name for name in one.players if " UTC)" in name]
        assert alone
        assert {name.split(" ")[0] for name in alone} <= set(tx.index["account"].tolist())
        assert all("earlier as" in name for name in alone)
        edges = edge_values(explained)  # an edge is a message
        assert len(edges.edges) == len(explained.copies.around.edges)
        assert edges.values.sum() == pytest.approx(one.values[0, 3:].sum(), abs=1e-9)
    again = explainer.explain(rows)
    assert all(
        np.array_equal(a.found.values, b.found.values) for a, b in zip(found, again, strict=True)
    )


def test_values_are_shapleys(fitted):
    """The judge thins mask, features and embeddings itself, and asks the net row by row."""
    tx, part, _ = fitted
    width = part.net.config.features
    past = {"past": range(1 + width, 1 + width + 8)}
    options = GraphOptions(6, (("last week", 168 * 3_600_000),), past)
    explainer = part.explainer(options)
    rows = np.arange(len(tx) - 2, len(tx))
    for row, explained in zip(rows, explainer.explain(rows), strict=True):
        given = part.inputs(np.array([row]))
        slots = explained.copies.graph.edge_inputs["slot"].numpy()
        source = explained.copies.graph.edge_index[0].numpy()
        background = explainer.background.values[0]
        names = explained.found.players
        features = part._history.features_of(np.array([row]))

        def worth(coalition, names=names, given=given, features=features, slots=slots,
                  source=source, explained=explained, background=background):  # fmt: skip
            mask = np.zeros_like(given["mask"])
            own = background[None, 1 : 1 + width]
            embeddings = background[1 + width :].reshape(1, 2, 4)
            for player in coalition:
                mask[0, slots[np.isin(source, explained.members[player])]] = True
                own = features if names[player] == "own features" else own
                embeddings = given["embeddings"] if names[player] == "past" else embeddings
            arrays = (own.copy(), given["mail"], mask, embeddings.copy())
            with torch.no_grad():
                return float(part.net(*(torch.from_numpy(a) for a in arrays))[0, 0])

        count = len(names)
        for player in range(count):
            others = [p for p in range(count) if p != player]
            wanted = sum(
                (worth({*some, player}) - worth(some)) / (count * math.comb(count - 1, size))
                for size in range(count)
                for some in combinations(others, size)
            )
            assert explained.found.values[0, player] == pytest.approx(wanted, abs=2e-5)


def test_a_first_transaction_has_no_partners(fitted):
    _, _, explainer = fitted
    (explained,) = explainer.explain(np.array([0]))
    assert explained.found.players == ("past of sender", "past of receiver", "own features")
    assert not len(edge_values(explained).values)


def test_a_net_without_embeddings_has_no_past_of_entities(fitted):
    tx, part, _ = fitted
    history = part._history
    plain = replace(SMALL, steps=2, entities=replace(SMALL.entities, embedding=0))
    bare = fit_graph_rows(
        tx, history.features, history.graph.dataset, part.train_rows, settings=plain
    )
    last = np.array([len(tx) - 1])
    (explained,) = bare.explainer().explain(last)
    assert explained.found.players[0] == "own features"
    assert not any(name.startswith("past of") for name in explained.found.players)
    assert explained.found.scores[0] == pytest.approx(bare.hidden(last)[0, 0], abs=1e-4)


def test_a_net_in_training_is_refused(fitted):
    _, part, explainer = fitted
    part.net.train()
    try:
        with pytest.raises(UnstableScoreError, match=r"\.eval\(\)"):
            explainer.explain(np.array([900]))
    finally:
        part.net.eval()
