"""The head behind the fraud network on graphs, scored encrypted, against one row at a time.

The shipped head ``both`` reads the features of a payment and what a network over mailboxes and
entity embeddings makes of it. Owner and scorer share that work: the owner looks up embeddings and
mail and runs the published network on its own data; features and the network's signals are
encrypted, and the head, distilled into squares, is scored by who sees neither. Banks are simulated,
one per seed; losses are those of decrypted scores against the head in the clear, on the test week.
One row at a time means TenSEAL's layers (``mm``, ``square``, ``dot``) with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.protocol import judged_rows
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.stages import fit_graph_part, network_threads
from tasks.fraud.training import TrainingConfig, training_rows
from tasks.privacy.distil import DistilConfig
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import tenseal_layers
from tests.benchmarks._model import BANK, simulated
from tests.benchmarks.he_trees import measured


def bank(seed: int, *, smoke: bool) -> tuple[Any, Any, list[str]]:
    """Return rows, teacher's scores (and labels of the test week) of a bank, and column names."""
    size = replace(BANK, seed=seed, **({"cards": 300, "terminals": 600} if smoke else {}))
    config = find_config("demo")
    _, tx = simulated(config, size)
    features = build_features(tx, config)
    network: dict[str, Any] = {"steps": 30 if smoke else 150, "folds": 2, "entities": {"steps": 40}}
    trees = TreeConfig(rounds=20, seeds=1) if smoke else TreeConfig(seeds=2)
    training = TrainingConfig(trees=trees, graph=True, network=network)
    plan = make_plan(tx, config)
    fold = plan.test[0]
    with network_threads(training):
        graph = fit_graph_part(tx, features, fold, config, training)
    if graph is None:
        raise RuntimeError("the graph part was not trained")
    rows, test = training_rows(tx, fold), judged_rows(tx, fold, plan.protocol.entity)
    wide, wide_test = (
        np.concatenate([features.values[chosen], graph.hidden(chosen)], axis=1)
        for chosen in (rows, test)
    )
    head = fit_trees(wide, tx.label[rows], trees)
    names = [*features.names, *(f"signal.{i}" for i in range(wide.shape[1] - len(features.names)))]
    train = (wide, head.logit(wide))
    return train, (wide_test, tx.label[test], head.logit(wide_test)), names


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-gnn-head", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    args = made.parse_args(argv)
    seeds = args.seeds or (1 if args.smoke else 10)
    config = DistilConfig(most_auc_loss=1.0, updates=3_000)
    if args.smoke:
        config = replace(config, steps=16, rounds=10, hidden=4, updates=60)
    found = []
    for seed in range(args.seed, args.seed + seeds):
        train, test, names = bank(seed, smoke=args.smoke)
        of_bank, student = measured(train, test, names, config, -math.inf)
        found.append(of_bank)
        if not args.json:
            print(f"bank {seed}: {found[-1]}", flush=True)
    figures: dict[str, Any] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for key in ("auc_loss", "ap_loss"):
        figures[f"{key}_interval"] = mean_interval([one[key] for one in found])
    figures["max_err"] = max(one["max_err"] for one in found)
    places = [names.index(column) for column in student.encoding.columns]
    inputs = student.encoding.encode(test[0][:2, places])
    figures["sequential_rows_s"] = tenseal_layers(student, inputs)
    figures["x_sequential"] = figures["rows_s"] / figures["sequential_rows_s"]
    emit(figures | {"seeds": seeds}, args)


if __name__ == "__main__":
    run_program("he-gnn-head", main)
