"""Small banks with a quickly trained model, for tests of the whole stream."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.fraud.bundle import Bundle
from tasks.fraud.dataset import DatasetConfig, Split, find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.features import build_features
from tasks.fraud.heads import MlpConfig, TreeConfig
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import (
    CardsConfig,
    TransfersConfig,
    simulate_cards,
    simulate_transfers,
)
from tasks.fraud.stages import fit_graph_part, network_threads
from tasks.fraud.training import TrainingConfig, fit_fold
from tasks.fraud.transactions import Transactions
from tests.benchmarks._model import write_fitted

NETWORK = {"steps": 20, "folds": 2, "entities": {"steps": 5}}


@dataclass(frozen=True)
class StreamBank:
    """A history, as rows of messages and as checked transactions, and a model of it."""

    config: DatasetConfig
    rows: list[dict[str, Any]]
    tx: Transactions
    bundle: Bundle


def cards_bank(folder: Path) -> StreamBank:
    bank = CardsConfig(cards=80, terminals=120, days=60, seed=5, bad_terminals_per_day=0.8)
    table = pa.Table.from_batches(simulate_cards(bank))
    return _bank(folder, find_config("demo"), table, graph=False)


def transfers_bank(folder: Path) -> StreamBank:
    network = TransfersConfig(accounts=150, days=60, seed=4, rings=20)
    table = pa.Table.from_batches(simulate_transfers(network))
    return _bank(folder, find_config("transfers"), table, graph=True)


def _bank(folder: Path, config: DatasetConfig, table: pa.Table, *, graph: bool) -> StreamBank:
    tx = check(table, config, "simulated").transactions
    features = build_features(tx, config)
    training = TrainingConfig(
        trees=TreeConfig(rounds=10, seeds=2, min_rows=5),
        mlp=MlpConfig(epochs=1),
        graph=graph,
        network=NETWORK if graph else {},
    )
    split = Split(
        train_days=20,
        test_days=7,
        folds=1,
        validation_folds=1,
        warmup_days=10,
        test_start="2018-05-11",  # rings end well before the data
    )
    fold = make_plan(tx, replace(config, split=split)).test[0]
    with network_threads(training):
        part = fit_graph_part(tx, features, fold, config, training)
        fitted = fit_fold(tx, features, fold, training, part)
        bundle = write_fitted(folder / "bundle", tx, features, config, fitted, training)
    return StreamBank(config, table.to_pylist(), tx, bundle)


def label_rows(bank: StreamBank) -> list[dict[str, Any]]:
    """Return the label messages: all that a transaction has but the amount."""
    return [{k: v for k, v in row.items() if k != bank.config.amount} for row in bank.rows]


def write_lines(folder: Path, rows: list[Any], *, files: int = 1) -> None:
    """Write JSON lines, dealt out to several files; bytes are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = [
            row if isinstance(row, bytes) else json.dumps(row).encode()
            for row in rows[number::files]
        ]
        (folder / f"part-{number}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the finished lines of a folder of results."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            found += [json.loads(line) for line in path.read_bytes().splitlines()]
    return found


def disordered(rows: list[dict[str, Any]], time: str, seconds: int, seed: int) -> list[Any]:
    """Return rows out of order by up to ``seconds``, in the order in which they arrive."""
    rng = np.random.default_rng(seed)
    arrival = np.array([row[time] for row in rows]) + rng.integers(0, seconds, len(rows))
    return [rows[i] for i in np.argsort(arrival, kind="stable")]
