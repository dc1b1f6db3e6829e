"""The rehearsal of federated training, against real servers and with real branch processes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

SETTINGS = {"rounds": 4, "hidden": []}


@pytest.fixture(scope="module")
def rehearsed(small_bank, prefect_server, mlflow_server):
    from flows.federated_train import federated_train

    bank = small_bank("fedbank")
    return federated_train(str(bank.data), str(bank.config), SETTINGS, branches=4)


def test_branches_train_a_model_together(rehearsed):
    from tasks.privacy.federated.model import FederatedModel

    assert [r["round"] for r in rehearsed["rounds"]] == [1, 2, 3, 4]
    assert all(r["survivors"] == 4 and r["left"] == 0 for r in rehearsed["rounds"])
    assert rehearsed["rounds"][0]["rows"] == rehearsed["rows"]
    assert rehearsed["rounds"][-1]["loss"] < rehearsed["rounds"][0]["loss"]
    assert rehearsed["epsilon"] is None
    assert rehearsed["figures"]["auc"] > 0.6
    model = FederatedModel.from_dict(json.loads(Path(rehearsed["model"]).read_text()))
    assert np.isfinite(model.logits(np.zeros((2, len(model.encoding.columns))))).all()
    kept = {path.name for path in Path(rehearsed["model"]).parent.rglob("*") if path.is_file()}
    assert kept == {"model.json", "branch.json", "branch.log", "ledger.txt", ".ledger.txt.lock"}


def test_every_round_is_tracked(rehearsed):
    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.get_run(rehearsed["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["threshold"] == "3"
    assert run.data.params["federated.local.batch"] == "256"
    assert run.data.tags["protects"] == "nothing beyond sums"
    assert run.data.metrics["auc"] == pytest.approx(rehearsed["figures"]["auc"])
    for name in ("loss", "survivors", "up_bytes", "down_bytes", "seconds"):
        history = client.get_metric_history(rehearsed["run_id"], name)
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [
            (r["round"], pytest.approx(r[name])) for r in rehearsed["rounds"]
        ]
    files = {f.path for f in client.list_artifacts(rehearsed["run_id"])}
    assert "model.json" in files


def test_noise_is_accounted_for(rehearsed, small_bank):
    from mlflow import MlflowClient

    from flows.federated_train import federated_train
    from tasks.privacy.federated.accountant import epsilon

    bank = small_bank("fedbank")
    private = {"rate": 0.1, "noise": 2.0}
    record = federated_train(
        str(bank.data),
        str(bank.config),
        SETTINGS | {"private": private},
        branches=4,
        public=str(bank.data),
    )
    assert record["epsilon"] == pytest.approx(epsilon(0.1, 2.0, 4, 1e-6))
    run = MlflowClient().get_run(record["run_id"])
    assert run.data.metrics["epsilon"] == pytest.approx(record["epsilon"])
    assert run.data.tags["protects"] == "a row of features"
    assert all(r["loss"] is None for r in record["rounds"])
    assert math.isfinite(record["figures"]["auc"])


def test_what_does_not_fit_is_refused_before_branches_start(rehearsed, small_bank):
    from flows.federated_train import federated_train

    bank = small_bank("fedbank")
    for settings, options, said in (
        ({"round": 3}, {}, "settings of the training: .*round"),
        ({"private": {}}, {}, "needs plan.scaling from public rows"),
        ({}, {"entity": "shop"}, "no entity column 'shop'"),
        ({}, {"branches": 4, "threshold": 2}, "between 3 and 4"),
    ):
        with pytest.raises(ValueError, match=said):
            federated_train(str(bank.data), str(bank.config), settings, **options)


def test_features_of_a_branch_tell_of_its_own_rows_alone(small_bank):
    from flows.federated_train import _shared_out
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.evaluation.plan import make_plan
    from tasks.fraud.evaluation.protocol import judged_rows
    from tasks.fraud.features import build_features
    from tasks.fraud.ingest.checks import check
    from tasks.privacy.federated.split import split_by_entity

    bank = small_bank("fedbank")
    config = DatasetConfig.from_toml(bank.config)
    tx = check(pq.read_table(bank.data), config, "bank").transactions
    fold = make_plan(tx, config).test[0]
    _, parts, (x, y) = _shared_out(tx, fold, config, 4, "", 0)
    training = np.isin(np.arange(len(tx)), fold.train_rows(tx))
    home = split_by_entity(tx.entities["terminal"], tx.label, 4, 0, training=training)
    later = judged_rows(tx, fold)
    np.testing.assert_array_equal(y, tx.label[later])
    for place, (features, label) in enumerate(parts.values()):
        own = np.flatnonzero(home == place)
        alone = build_features(tx.take(own), config).values
        np.testing.assert_array_equal(features, alone[training[own]])
        np.testing.assert_array_equal(label, tx.label[own][training[own]])
        np.testing.assert_array_equal(x[home[later] == place], alone[np.isin(own, later)])
