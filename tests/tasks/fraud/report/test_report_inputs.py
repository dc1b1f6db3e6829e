"""Reasons of alerts speak the currency and the values of the user's data, as everywhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tasks.fraud.bundle import BundleParts, write_bundle
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.features import FeatureSet
from tasks.fraud.heads import TreeConfig, fit_logistic, fit_trees
from tasks.fraud.heads.files import head_to_dict
from tasks.fraud.heads.head import Blend, Head
from tasks.fraud.online.head import FastHead
from tasks.fraud.report.inputs import explain_alerts

CODES = tuple(f"shop-{i}" for i in range(40))
CONFIG = DatasetConfig(
    "yen", "t", "amount", (EntityColumn("buyer"),), categorical=("mcc",), decimals=0
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    rng = np.random.default_rng(0)
    amount, code = rng.integers(1, 9_999, 4_000), rng.integers(-1, 40, 4_000)
    values = np.stack([amount, code], axis=1).astype(np.float32)
    label = ((amount > 5_000) & (code >= 30)).astype(np.int8)
    trees = fit_trees(values, label, TreeConfig(rounds=20, seeds=2, min_rows=20))
    blend = Head(Blend((trees.scorer, fit_logistic(values, label).scorer), (0.8, 0.2)))
    heads = {"tabular": trees, "mlp": blend}
    stored = json.dumps({name: head_to_dict(head) for name, head in heads.items()}).encode()
    return {
        active: write_bundle(
            tmp_path_factory.mktemp("report") / active,
            BundleParts(
                config=CONFIG, feature_names=("amount", "mcc"), features_version=1, active=active,
                heads={name: head.to_onnx() for name, head in heads.items()}, metrics={},
                thresholds={"alerts_per_day": {"100": 0.0}}, background=values[:50],
                example={"features": values[:16]}, trained_until=0, data_digest="0" * 64,
                categories={"mcc": list(CODES)}, extras={"heads.json": stored},
            ),
        )
        for active in heads
    }  # fmt: skip


@pytest.mark.parametrize("active", ["tabular", "mlp"])
def test_amounts_and_categories_are_said_as_in_the_data(bundles, active):
    bundle = bundles[active]
    table = np.array([[7_654, 37], [9_000, 31]], np.float32)
    features = FeatureSet(bundle.feature_names, table, {"mcc": CODES})
    alerts, reasons, strengths = explain_alerts(
        bundle, None, features, np.array([0, 1]), np.array([0.5, 0.9])
    )
    assert alerts.tolist() == [1, 0]
    assert {r.text for r in reasons[1]} == {"amount of 7,654", "mcc is shop-37"}
    assert {s.label for s in strengths} == {"amount", "mcc"}
    if active == "tabular":  # the API answers with the same
        head = FastHead.load(bundle)
        assert reasons == [head.reasons(table[1]), head.reasons(table[0])]
        assert all(r.error > 0 for found in reasons for r in found)
