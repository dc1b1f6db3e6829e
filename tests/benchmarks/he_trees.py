"""Boosted trees distilled into a network of squares, scored encrypted, on the public card stream.

The teacher is the shipped tree head (5 models of 150 trees) of each of the four test folds; the
student learns from its scores on the training rows alone, and both are judged on the test week.
Every test row is encrypted, scored and decrypted. Rows a second are those of the scorer, CPU time,
reading and writing included. Losses are the teacher's figure less that of the decrypted scores,
both as they are shown: below the shipped head's floor, where its order is chance, scores tie.

``trees_`` are figures of the same trees without distillation, their splits published, on fold 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from connectors.private.fraud_head import readout_of, trees_of
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.protocol import judged_rows
from tasks.fraud.features import build_features
from tasks.fraud.heads import fit_trees
from tasks.fraud.training import training_rows
from tasks.privacy.compile import CompileOptions
from tasks.privacy.distil import DistilConfig, Judged, distil
from tasks.privacy.model import PrivateModel
from tests.benchmarks._harness import emit, parser, run_program
from tests.benchmarks._he import Reals, pair_of, ranking_losses, trip
from tests.benchmarks.fraud_handbook import SETTINGS, SMOKE, load_stream

GROUP = 8_192
"""Rows of one request."""


Test = tuple[Any, Any, Reals]
"""Rows of the test week, their labels, and the teacher's scores."""


def measured(
    model: PrivateModel, calibration: Any, test: Test, ties_below: float = -math.inf
) -> dict[str, float]:
    """Compile a model and score every row of a test encrypted.

    Args:
        model: Over some of the test's columns.
        calibration: Rows of its own columns.
        test: All of its own columns.
        ties_below: Score below which the teacher's tie.
    """
    own, labels, teacher = test
    options = CompileOptions(tolerance=1e-2, max_rows=GROUP)
    pair = pair_of(model, calibration.astype(np.float64), options)
    rows = own.astype(np.float64)
    trip(pair, rows[:8])
    trips = [trip(pair, rows[start : start + GROUP]) for start in range(0, len(rows), GROUP)]
    found = np.concatenate([one.scores[:, 0] for one in trips])
    whole = [one for one in trips if one.sealed.rows == GROUP] or trips
    sent = sum(one.sealed.rows for one in whole)
    floor = model.readout.floor
    shown = found if floor is None else np.maximum(found, floor)
    auc_loss, ap_loss = ranking_losses(labels, np.maximum(teacher, ties_below), shown)
    return {
        "rows_s": sent / sum(one.score for one in whole),
        "auc_loss": auc_loss,
        "ap_loss": ap_loss,
        "max_err": float(np.abs(found - model.score(rows)[:, 0]).max()),
        "proved_err": pair.compiled.proof.likely_calibration,
        "inputs": model.encoding.inputs,
        "columns": rows.shape[1],
        "up_bytes_per_row": sum(len(one.sealed.content) for one in whole) / sent,
        "client_us_per_row": sum(one.encrypt + one.decrypt for one in whole) / sent * 1e6,
        "security_bits": pair.compiled.plan.parameters.security_bits,
    }


def of_columns(model: PrivateModel, names: Sequence[str], rows: Any) -> Any:
    """Return a model's own columns of rows."""
    return rows[:, [names.index(column) for column in model.encoding.columns]]


def distilled(
    train: tuple[Any, Reals],
    test: Test,
    names: Sequence[str],
    config: DistilConfig,
    ties_below: float,
) -> tuple[PrivateModel, dict[str, float]]:
    """Distil a teacher's scores of its training rows; returns the student and what it took."""
    began, wall = time.process_time(), time.perf_counter()
    made = distil(*train, list(names), Judged(*test), config, ties_below=ties_below)
    seconds, wall_seconds = time.process_time() - began, time.perf_counter() - wall
    return made.model, {"distil_s": seconds, "distil_wall_s": wall_seconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("he-trees", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="Parquet file of the stream")
    made.add_argument("--test-start", default="", help="first test day of fold 0 (ISO date)")
    made.add_argument("--folds", type=int, default=4, help="test folds (default 4)")
    args = made.parse_args(argv)
    config = DistilConfig(most_auc_loss=1.0)
    trees = SETTINGS.trees
    if args.smoke:
        trees = SMOKE.trees
        config = replace(config, steps=24, rounds=20, hidden=4, updates=60)
    tx, dataset = load_stream(args)
    features = build_features(tx, dataset)
    plan = make_plan(tx, dataset, protocol=None)
    found: list[dict[str, float]] = []
    exact: dict[str, float] = {}
    for fold in plan.test:
        rows = training_rows(tx, fold)
        judged = judged_rows(tx, fold, plan.protocol.entity)
        x, x_test = features.values[rows], features.values[judged]
        head = fit_trees(x, tx.label[rows], trees)
        test = (x_test, tx.label[judged], head.logit(x_test))
        floor = head.calibration.floor
        ties_below = -math.inf if floor is None else floor

        def own(model: PrivateModel, test: Test = test) -> Test:
            return (of_columns(model, features.names, test[0]), *test[1:])

        student, took = distilled((x, head.logit(x)), test, features.names, config, ties_below)
        calibration = of_columns(student, features.names, x[:2_000])
        found.append(measured(student, calibration, own(student), ties_below) | took)
        if not exact:
            model = trees_of(head.scorer, features.names, readout_of(head.calibration, ()))
            calibration = of_columns(model, features.names, x[:2_000])
            exact = measured(model, calibration, own(model), ties_below)
        if not args.json:
            print(f"fold {fold.index}: {found[-1]}", flush=True)
    figures: dict[str, Any] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for key in ("auc_loss", "ap_loss", "rows_s"):
        figures[f"{key}_folds"] = [one[key] for one in found]
    figures["max_err"] = max(one["max_err"] for one in found)
    figures |= {f"trees_{key}": value for key, value in exact.items()}
    emit(figures | {"folds": len(found)}, args)


if __name__ == "__main__":
    run_program("he-trees", main)
