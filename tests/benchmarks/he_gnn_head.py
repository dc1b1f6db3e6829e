"""The head behind the fraud network on graphs, scored encrypted, against one row at a time.

The shipped head ``both`` reads the features of a payment and what a network over mailboxes and
entity embeddings makes of it. Owner and scorer share that work: the owner looks up embeddings and
mail and runs the published network on its own data; features and the network's signals are
encrypted, and the head, trees whose splits are published, is scored by who sees neither. Banks are
simulated, one per seed; losses are those of decrypted scores against the head in the clear, on the
test week. One row at a time means TenSEAL's ``dot`` with the same inputs and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from connectors.private.fraud_head import readout_of, trees_of
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.protocol import judged_rows
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.stages import fit_graph_part, network_threads
from tasks.fraud.training import TrainingConfig, training_rows
from tasks.privacy.model import PrivateModel
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import tutorial
from tests.benchmarks._model import BANK, simulated
from tests.benchmarks.he_trees import Test, measured, of_columns


def bank(seed: int, *, smoke: bool) -> tuple[PrivateModel, Any, Test]:
    """Return the head of a bank, rows to compile it with, and the test week."""
    size = replace(BANK, seed=seed, **({"cards": 300, "terminals": 600} if smoke else {}))
    config = find_config("demo")
    _, tx = simulated(config, size)
    features = build_features(tx, config)
    network: dict[str, Any] = {"steps": 30 if smoke else 150, "folds": 2, "entities": {"steps": 40}}
    trees = TreeConfig(rounds=20, seeds=1) if smoke else TreeConfig()
    training = TrainingConfig(trees=trees, graph=True, network=network)
    plan = make_plan(tx, config)
    fold = plan.test[0]
    with network_threads(training):
        graph = fit_graph_part(tx, features, fold, config, training)
    if graph is None:
        raise RuntimeError("the graph part was not trained")
    rows, judged = training_rows(tx, fold), judged_rows(tx, fold, plan.protocol.entity)
    wide, wide_test = (
        np.concatenate([features.values[chosen], graph.hidden(chosen)], axis=1)
        for chosen in (rows, judged)
    )
    head = fit_trees(wide, tx.label[rows], trees)
    names = [*features.names, *(f"signal.{i}" for i in range(wide.shape[1] - len(features.names)))]
    model = trees_of(head.scorer, names, readout_of(head.calibration, ()))
    own, calibration = (of_columns(model, names, one) for one in (wide_test, wide[:2_000]))
    return model, calibration, (own, tx.label[judged], head.logit(wide_test))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-gnn-head", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    args = made.parse_args(argv)
    seeds = args.seeds or (1 if args.smoke else 10)
    found = []
    for seed in range(args.seed, args.seed + seeds):
        model, calibration, test = bank(seed, smoke=args.smoke)
        found.append(measured(model, calibration, test))
        if not args.json:
            print(f"bank {seed}: {found[-1]}", flush=True)
    figures: dict[str, Any] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for key in ("auc_loss", "ap_loss"):
        figures[f"{key}_interval"] = mean_interval([one[key] for one in found])
    figures["max_err"] = max(one["max_err"] for one in found)
    inputs = model.encoding.encode(test[0][:20])
    figures["sequential_rows_s"] = tutorial(inputs, model.weights[0], len(inputs))
    figures["x_sequential"] = figures["rows_s"] / figures["sequential_rows_s"]
    emit(figures | {"seeds": seeds}, args)


if __name__ == "__main__":
    run_program("he-gnn-head", main)
