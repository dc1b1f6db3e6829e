"""What a learned graph model adds on transfers with laundering rings, which only a graph shows.

Per seed: simulate a network, train on days 40-84, test on days 92-112 (labels known after seven
days), score transfers, average precision. ``tabular`` is trees on entity state of sender and
receiver, ``gnn`` a net on mail and embeddings without entity state, ``net`` the net that sees all
of it, ``both`` the same trees with that net's signals beside the features. ``gain`` is both minus
tabular; ``gain_low`` the lower end of its 95 % interval over the seeds (paired, Student's t).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.metrics import average_precision
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.graph import GraphSettings, fit_graph_rows
from tasks.fraud.graph.entity_training import EntitySettings
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import TransfersConfig, simulate_transfers
from tasks.fraud.stages import network_threads
from tasks.fraud.training import TrainingConfig
from tasks.fraud.transactions import Transactions
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table

DAY_MS = 86_400_000
KEYS = ("tabular_ap", "gnn_ap", "net_ap", "both_ap")
TRAIN_DAYS, TEST_DAYS = (40, 85), (92, 113)
CONFIG = Path(__file__).parents[2] / "tasks" / "fraud" / "datasets" / "transfers.toml"


def prepare(simulation: TransfersConfig) -> tuple[Transactions, FeatureSet, DatasetConfig]:
    """Simulate, check and featurise one network."""
    config = DatasetConfig.from_toml(CONFIG)
    rows = pa.Table.from_batches(simulate_transfers(simulation))
    tx = check(rows, config, "simulated").transactions
    return tx, build_features(tx, config), config


def judge(
    tx: Transactions,
    features: FeatureSet,
    config: DatasetConfig,
    settings: GraphSettings,
    trees: TreeConfig,
) -> dict[str, float]:
    """Fit the three heads and return their average precision."""
    day = (tx.time - config.origin_ms) // DAY_MS
    train = np.flatnonzero((day >= TRAIN_DAYS[0]) & (day < TRAIN_DAYS[1]))
    test = np.flatnonzero((day >= TEST_DAYS[0]) & (day < TEST_DAYS[1]))
    x, y = features.values, tx.label
    with stopwatch() as fitting, network_threads(TrainingConfig()):
        graph = fit_graph_rows(tx, features, config, train, settings=settings)
    tabular = fit_trees(x[train], y[train], trees).logit(x[test])
    wide, seen = np.hstack([x[train], graph.hidden(train)]), graph.hidden(test)
    both = fit_trees(wide, y[train], trees).logit(np.hstack([x[test], seen]))
    scores = {"tabular": tabular, "gnn": graph.predict(test), "net": seen[:, 0], "both": both}
    figures = {f"{k}_ap": average_precision(y[test], s) for k, s in scores.items()}
    figures["gain"] = figures["both_ap"] - figures["tabular_ap"]
    counts = {"frauds": int((y[test] == 1).sum()), "rows": len(test)}
    return figures | counts | {"fit_cpu_s": fitting.cpu, "fit_wall_s": fitting.wall}


def lower_bound(gains: list[float]) -> float:
    """Return the lower end of the two-sided 95 % t-interval of the mean; NaN for one seed."""
    from scipy.stats import t

    if len(gains) < 2:
        return float("nan")
    half = t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains))
    return float(np.mean(gains) - half)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    arguments = parser("fraud-ring", "Learned graph model against entity state on transfers.")
    arguments.add_argument("--seeds", type=int, default=5, help="networks; from --seed upwards")
    arguments.add_argument("--no-embeddings", action="store_true", help="mailboxes alone")
    args = arguments.parse_args(argv)
    network = TransfersConfig(accounts=600, rings=40) if args.smoke else TransfersConfig()
    settings, trees = GraphSettings(), TreeConfig()
    if args.smoke:
        small = EntitySettings(steps=10, events=256)
        settings = GraphSettings(steps=60, folds=2, hidden=16, entities=small)
        trees = TreeConfig(seeds=1, rounds=60, min_rows=30)
    if args.no_embeddings:
        settings = replace(settings, entities=replace(settings.entities, embedding=0))
    rows: list[dict[str, Any]] = []
    for seed in range(args.seed, args.seed + (2 if args.smoke else args.seeds)):
        with stopwatch() as spent:
            figures = judge(*prepare(replace(network, seed=seed)), settings, trees)
        rows.append({"seed": seed, **figures, "cpu_s": spent.cpu, "wall_s": spent.wall})
        print(" ".join(f"{k}={v:.4g}" for k, v in rows[-1].items()), flush=True)
    gains = [row["gain"] for row in rows]
    means = {k: float(np.mean([r[k] for r in rows])) for k in KEYS}
    shown = ("frauds", *KEYS, "gain", "fit_cpu_s", "cpu_s", "wall_s")
    table(
        "Average precision on transfers with laundering rings",
        ["seed", *shown],
        [[str(r["seed"]), *(r[c] for c in shown)] for r in rows],
        note="train days 40-84, test days 92-112, labels known after 7 days",
    )
    spent_s = {k: float(sum(r[k] for r in rows)) for k in ("cpu_s", "wall_s")}
    result = {"seeds": len(rows), "gain": float(np.mean(gains)), "gain_low": lower_bound(gains)}
    emit(means | result | spent_s | {"peak_gib": peak_gib(), "rows": rows}, args)
    return 0


if __name__ == "__main__":
    run_program("fraud-ring", main)
