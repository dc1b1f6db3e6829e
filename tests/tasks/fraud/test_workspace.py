"""Transactions and features on disk survive as they were."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from tasks.fraud.features import FeatureSet
from tasks.fraud.transactions import Transactions
from tasks.fraud.workspace import (
    load_features,
    load_transactions_file,
    save_features,
    save_transactions,
)
from tasks.workspace import WorkspaceError


def test_transactions_survive_with_the_order_of_their_columns(tmp_path):
    n = 4
    tx = Transactions(
        event_id=np.arange(n), time=np.arange(n) * 10, amount=np.arange(n),
        label=np.array([0, 1, -1, 0], np.int8), label_time=np.arange(n),
        entities={"z": np.zeros(n, np.int32), "a": np.ones(n, np.int32)},
        kinds={"z": "account", "a": "account"},
        index={"account": np.array(["x", "y"], dtype=object)},
        numeric={"extra": np.array([1.0, np.nan, 2, 3])},
        categorical={"kind": np.array([0, -1, 1, 0], np.int32)},
        categories={"kind": np.array(["p", "q"])},
        event_names=np.array(["tx-ä", "", "a\nb", "x" * 300], dtype=object),
    )  # fmt: skip
    save_transactions(tmp_path, tx)
    again = load_transactions_file(tmp_path)
    assert list(again.entities) == ["z", "a"]
    for field in fields(tx):
        before, after = getattr(tx, field.name), getattr(again, field.name)
        if isinstance(before, dict):
            assert set(before) == set(after)
            for name in before:
                np.testing.assert_array_equal(before[name], after[name])
        else:
            np.testing.assert_array_equal(before, after)
            assert before.dtype == after.dtype
    save_transactions(tmp_path, replace(tx, event_names=None))
    assert load_transactions_file(tmp_path).event_names is None
    with pytest.raises(WorkspaceError, match="is missing"):
        load_transactions_file(tmp_path / "elsewhere")


def test_features_survive(tmp_path):
    made = FeatureSet(("a", "b"), np.eye(2, dtype=np.float32), {"kind": ("p", "q")})
    save_features(tmp_path, made)
    again = load_features(tmp_path)
    assert (again.names, dict(again.categories)) == (made.names, {"kind": ("p", "q")})
    np.testing.assert_array_equal(again.values, made.values)
    (tmp_path / "features.json").write_text(json.dumps("no"))
    with pytest.raises(WorkspaceError, match="holds no features"):
        load_features(tmp_path / "absent")
