"""A small bank, models trained on it within seconds, and APIs that serve them as real processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.heads import TreeConfig
from tests.benchmarks._api_server import ApiProcess

TREES = TreeConfig(rounds=12, seeds=2, bins=63)
SECRETS = {
    "scorer": "scorer-0123456789abcdef",
    "labeller": "labeller-0123456789abcdef",
    "reader": "reader-0123456789abcdef",
    "admin": "admin-0123456789abcdef",
}
TOKENS = ",".join(
    f"{name}:{scope}:{SECRETS[name]}"
    for name, scope in (
        ("scorer", "score"),
        ("labeller", "label"),
        ("reader", "read"),
        ("admin", "admin"),
    )
)


@pytest.fixture(scope="session")
def bank():
    """The bank's payments as a table and as transactions, and their dataset config."""
    from tasks.fraud.dataset import find_config
    from tasks.fraud.ingest.checks import check
    from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards

    config = find_config("demo")
    simulated = simulate_cards(CardsConfig(cards=120, terminals=60, days=70, seed=3))
    table = pa.Table.from_batches(simulated, CARDS_SCHEMA)
    return config, table, check(table, config, "simulated").transactions


@pytest.fixture(scope="session")
def learnt(bank):
    """Features, and a fold with small trees and a linear head."""
    from tasks.fraud.evaluation.plan import make_plan
    from tasks.fraud.features import build_features
    from tasks.fraud.heads import fit_trees
    from tasks.fraud.heads.logistic import fit_logistic
    from tasks.fraud.training import FittedFold, training_rows

    config, _, tx = bank
    features = build_features(tx, config)
    fold = make_plan(tx, replace(config, split=replace(config.split, folds=1))).test[0]
    rows = training_rows(tx, fold)
    values = np.ascontiguousarray(features.values[rows])
    heads = {
        "tabular": fit_trees(values, tx.label[rows], TREES),
        "logistic": fit_logistic(values, tx.label[rows]),
    }
    return features, FittedFold(fold, heads, None)


def written(folder, bank, features, fold, *, active="tabular"):
    from tasks.fraud.bundle import write_bundle
    from tasks.fraud.training import TrainingConfig, bundle_parts

    config, _, tx = bank
    return write_bundle(
        folder,
        bundle_parts(
            tx,
            features,
            config,
            fold,
            active=active,
            settings=TrainingConfig(graph=active == "both"),
            thresholds={"fpr": {"0.001": 0.5, "0.01": 0.05}, "cost": 0.3},
            metrics={},
            data_digest="0" * 64,
            git_commit="unknown",
        ),
    )


@pytest.fixture(scope="session")
def bundle(bank, learnt, tmp_path_factory):
    """A bundle whose active head is small trees."""
    return written(tmp_path_factory.mktemp("model") / "bundle", bank, *learnt)


@pytest.fixture(scope="session")
def other_bundle(bank, learnt, tmp_path_factory):
    """Another one, whose linear head is active."""
    folder = tmp_path_factory.mktemp("model") / "other"
    return written(folder, bank, *learnt, active="logistic")


@pytest.fixture(scope="session")
def graph_bundle(bank, learnt, tmp_path_factory):
    """A bundle whose active head reads mail and embeddings; its network has hardly learnt."""
    from tasks.fraud.heads import fit_trees
    from tasks.fraud.stages import fit_graph_part
    from tasks.fraud.training import TrainingConfig, training_rows

    config, _, tx = bank
    features, fold = learnt
    network = {"steps": 3, "folds": 2, "alone": False, "entities": {"steps": 2}}
    part = fit_graph_part(tx, features, fold.fold, config, TrainingConfig(network=network))
    rows = training_rows(tx, fold.fold)
    wide = np.concatenate([features.values[rows], part.hidden(rows)], axis=1)
    both = fit_trees(wide, tx.label[rows], TREES)
    fold = replace(fold, heads={**fold.heads, "both": both}, graph=part)
    folder = tmp_path_factory.mktemp("model") / "graph"
    return written(folder, bank, features, fold, active="both")


@pytest.fixture(scope="session")
def start(end_with_run, tmp_path_factory):
    """Starts APIs that end with the run at the latest."""
    running = []

    def begin(settings, *, home=None, ready=True):
        home = home or tmp_path_factory.mktemp("api")
        defaults = {"reload_seconds": 0, "journal_seconds": 0.2, "cache_mib": 64}
        api = ApiProcess(home, defaults | settings, TOKENS)
        end_with_run(api.process.pid)
        running.append(api)
        if ready:
            api.wait_ready()
        return api

    yield begin
    for api in running:
        api.kill()
        end_with_run(-api.process.pid)


@pytest.fixture(scope="session")
def api(start, bundle):
    """The API that most tests share; each uses events and entities of its own."""
    return start({"model": bundle.folder})


@pytest.fixture(scope="session")
def secrets():
    return SECRETS


@pytest.fixture(scope="session")
def events(bank):
    """Builder of transactions that nobody else uses."""
    config, _, tx = bank
    last = (int(tx.time[-1]) - config.origin_ms) // 1000
    number = iter(range(10_000_000, 20_000_000))

    def build(**changes):
        i = next(number)
        return {
            "tx_id": i,
            "t": last + i - 10_000_000,
            "customer": f"new-{i}",
            "terminal": f"T-{i % 7}",
            "amount_cents": 1_000 + i % 977,
        } | changes

    return build
