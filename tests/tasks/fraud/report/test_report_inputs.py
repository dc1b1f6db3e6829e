"""Reasons of alerts speak the currency and the values of the user's data."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.features import FeatureSet
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.heads.files import head_to_dict
from tasks.fraud.report.inputs import explain_alerts

CODES = tuple(f"shop-{i}" for i in range(40))
CONFIG = DatasetConfig(
    "yen", "t", "amount", (EntityColumn("buyer"),), categorical=("mcc",), decimals=0
)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    amount, code = rng.integers(1, 9_999, 4_000), rng.integers(-1, 40, 4_000)
    values = np.stack([amount, code], axis=1).astype(np.float32)
    label = ((amount > 5_000) & (code >= 30)).astype(np.int8)
    head = fit_trees(values, label, TreeConfig(rounds=20, seeds=1, min_rows=20))
    bundle = SimpleNamespace(
        config=CONFIG, active="tabular", categories={"mcc": list(CODES)},
        feature_names=("amount", "mcc"), thresholds={"alerts_per_day": {"100": 0.0}},
        needs_graph=lambda: False, background=lambda: values[:50],
        read_extra=lambda _: json.dumps({"tabular": head_to_dict(head)}).encode(),
    )  # fmt: skip
    return bundle, head


def test_amounts_and_categories_are_said_as_in_the_data(model):
    bundle, head = model
    table = np.array([[7_654, 37]], np.float32)
    features = FeatureSet(bundle.feature_names, table, {"mcc": CODES})
    _, reasons, _ = explain_alerts(bundle, None, features, np.array([0]), head.predict(table))
    assert {r.text for r in reasons[0]} == {"amount of 7,654", "mcc is shop-37"}
