"""A trained model for benchmarks of serving: quickly made, kept between runs, of the real kind."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.fraud.bundle import Bundle, write_bundle
from tasks.fraud.dataset import DatasetConfig, find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.heads import MlpConfig, TreeConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.stages import fit_graph_part, network_threads, thresholds_of
from tasks.fraud.training import (
    FittedFold,
    TrainingConfig,
    bundle_parts,
    calibrate,
    fit_fold,
)
from tasks.fraud.transactions import Transactions

BANK = CardsConfig(cards=1_000, terminals=2_000, days=80, seed=1)


def simulated(config: DatasetConfig, bank: CardsConfig = BANK) -> tuple[pa.Table, Transactions]:
    """Return the bank's payments as a table and checked."""
    table = pa.Table.from_batches(simulate_cards(bank), CARDS_SCHEMA)
    return table, check(table, config, "simulated").transactions


def serving_model(folder: Path, *, graph: bool, smoke: bool = False) -> Bundle:
    """Return a bundle with the full tree head (5 models of 150 trees), made once per folder.

    Args:
        folder: Where it is kept.
        graph: Whether the head that scores reads mail and embeddings, too.
        smoke: A tenth of the trees.
    """
    name = f"{'both' if graph else 'tabular'}{'-smoke' if smoke else ''}"
    if (folder / name / "manifest.json").is_file():
        return Bundle.load(folder / name)
    config = find_config("demo")
    _, tx = simulated(config)
    features = build_features(tx, config)
    trees = TreeConfig(rounds=15, seeds=2) if smoke else TreeConfig()
    network: dict[str, Any] = {"steps": 150, "folds": 2, "entities": {"steps": 40}}
    training = TrainingConfig(
        trees=trees, mlp=MlpConfig(epochs=1), graph=graph, network=network if graph else {}
    )
    fold = make_plan(tx, config).test[0]
    with network_threads(training):
        part = fit_graph_part(tx, features, fold, config, training)
        fitted = calibrate(tx, features, fit_fold(tx, features, fold, training, part))
        folder.mkdir(parents=True, exist_ok=True)
        return write_fitted(folder / name, tx, features, config, fitted, training)


def write_fitted(
    place: Path,
    tx: Transactions,
    features: FeatureSet,
    config: DatasetConfig,
    fitted: FittedFold,
    training: TrainingConfig,
) -> Bundle:
    """Write a fitted fold as a bundle without figures; its trees score."""
    active = "both" if training.graph else "tabular"
    parts = bundle_parts(
        tx,
        features,
        config,
        fitted,
        active=active,
        settings=training,
        thresholds=thresholds_of(tx, features, fitted, config, active),
        metrics={},
        data_digest="0" * 64,
        git_commit="unknown",
    )
    return write_bundle(place, parts)


def bank_facts(bank: CardsConfig = BANK) -> dict[str, Any]:
    """Return the size of the bank, for records."""
    return {key: value for key, value in asdict(bank).items() if key in ("cards", "terminals")}
