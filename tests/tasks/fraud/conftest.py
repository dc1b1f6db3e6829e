"""Fixtures of fraud tests: one small bank of transfers, fitted once with its graph network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.fraud import stages
from tasks.fraud.bundle import write_bundle
from tasks.fraud.dataset import DatasetConfig, Split
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.features import build_features
from tasks.fraud.heads import MlpConfig, TreeConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import TransfersConfig, simulate_transfers
from tasks.fraud.training import TrainingConfig, bundle_parts, calibrate, fit_fold

DATASETS = Path(__file__).resolve().parents[3] / "tasks" / "fraud" / "datasets"


@pytest.fixture(scope="session")
def settings():
    """Settings under which everything fits within seconds."""
    return TrainingConfig(
        trees=TreeConfig(rounds=15, seeds=2, min_rows=10),
        mlp=MlpConfig(hidden=(8, 4), epochs=3, batch=256),
        background_rows=24,
        network={
            "steps": 30,
            "batch": 64,
            "negatives": 7,
            "hidden": 8,
            "folds": 2,
            "entities": {"steps": 4, "events": 64, "hidden": 8, "embedding": 4},
        },
    )


@pytest.fixture(scope="session")
def data():
    """Transactions, features and config."""
    shipped = DatasetConfig.from_toml(DATASETS / "transfers.toml")
    split = Split(train_days=20, test_days=7, folds=2, validation_folds=1, warmup_days=5,
                  test_start="2018-05-20")  # fmt: skip
    config = replace(shipped, split=split)
    network = TransfersConfig(accounts=120, days=70, rings=12, seed=2)
    tx = check(pa.Table.from_batches(simulate_transfers(network)), config, "x").transactions
    return tx, build_features(tx, config), config


@pytest.fixture(scope="session")
def plan(data):
    return make_plan(data[0], data[2])


@pytest.fixture(scope="session")
def fitted(data, plan, settings):
    """Every head of the newest fold, the graph part's with them."""
    tx, features, config = data
    fold = plan.test[0]
    graph = stages.fit_graph_part(tx, features, fold, config, settings)
    return calibrate(tx, features, fit_fold(tx, features, fold, settings, graph))


@pytest.fixture(scope="session")
def written(data, fitted, settings, tmp_path_factory):
    """Return a function that writes the bundle with a given active head."""
    tx, features, config = data

    def write(active):
        parts = bundle_parts(
            tx, features, config, fitted,
            active=active, settings=settings, metrics={"test": {}}, data_digest="0" * 64,
            thresholds=stages.thresholds_of(tx, features, fitted, config, active), git_commit="x",
        )  # fmt: skip
        return write_bundle(tmp_path_factory.mktemp("bundles") / "b", parts)

    return write


@pytest.fixture(scope="session")
def bundle(written):
    """The bundle whose champion reads the graph network."""
    return written("both")
