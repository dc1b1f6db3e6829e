"""Boosted trees distilled into a network of squares, scored encrypted, on the public card stream.

The teacher is the shipped tree head (5 models of 150 trees) of each of the four test folds; the
student learns from its scores on the training rows alone, and both are judged on the test week.
Every test row is encrypted, scored and decrypted. Rows a second are those of the scorer, CPU time,
reading and writing included. Losses are the teacher's figure less that of the decrypted scores,
both as they are shown: below the shipped head's floor, where its order is chance, scores tie.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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


def measured(
    train: tuple[Any, Reals],
    test: tuple[Any, Any, Reals],
    names: Sequence[str],
    config: DistilConfig,
    ties_below: float,
) -> tuple[dict[str, float], PrivateModel]:
    """Distil, compile and score one fold; returns figures and the student.

    Args:
        train: Rows and the teacher's scores.
        test: Rows, labels and the teacher's scores.
        names: Of the columns.
        config: Of the distillation.
        ties_below: Score below which the teacher's tie.
    """
    began, wall = time.process_time(), time.perf_counter()
    rows, labels, teacher = test
    made = distil(
        train[0],
        train[1],
        list(names),
        Judged(rows, labels, teacher),
        config,
        ties_below=ties_below,
    )
    seconds, wall_seconds = time.process_time() - began, time.perf_counter() - wall
    own = rows[:, made.places].astype(np.float64)
    calibration = train[0][:2_000, made.places].astype(np.float64)
    pair = pair_of(made.model, calibration, CompileOptions(tolerance=1e-2, max_rows=GROUP))
    trip(pair, own[:8])
    trips = [trip(pair, own[start : start + GROUP]) for start in range(0, len(own), GROUP)]
    found = np.concatenate([one.scores[:, 0] for one in trips])
    whole = [one for one in trips if one.sealed.rows == GROUP] or trips
    floor = made.model.readout.floor
    shown = found if floor is None else np.maximum(found, floor)
    auc_loss, ap_loss = ranking_losses(labels, np.maximum(teacher, ties_below), shown)
    figures = {
        "rows_s": sum(one.sealed.rows for one in whole) / sum(one.score for one in whole),
        "auc_loss": auc_loss,
        "ap_loss": ap_loss,
        "distil_s": seconds,
        "distil_wall_s": wall_seconds,
        "max_err": float(np.abs(found - made.model.score(own)[:, 0]).max()),
        "proved_err": pair.compiled.proof.likely_calibration,
        "inputs": made.model.encoding.inputs,
        "columns": len(made.places),
        "up_bytes_per_row": len(whole[0].sealed.content) / whole[0].sealed.rows,
        "client_us_per_row": sum(one.encrypt + one.decrypt for one in whole)
        / sum(one.sealed.rows for one in whole)
        * 1e6,
        "security_bits": pair.compiled.plan.parameters.security_bits,
    }
    return figures, made.model


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
    found = []
    for fold in plan.test:
        rows = training_rows(tx, fold)
        test = judged_rows(tx, fold, plan.protocol.entity)
        x, x_test = features.values[rows], features.values[test]
        head = fit_trees(x, tx.label[rows], trees)
        teacher, teacher_test = head.logit(x), head.logit(x_test)
        lowest = head.calibration.floor
        one, _ = measured(
            (x, teacher),
            (x_test, tx.label[test], teacher_test),
            features.names,
            config,
            -math.inf if lowest is None else lowest,
        )
        found.append(one)
        if not args.json:
            print(f"fold {fold.index}: {one}", flush=True)
    figures: dict[str, Any] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for key in ("auc_loss", "ap_loss", "rows_s"):
        figures[f"{key}_folds"] = [one[key] for one in found]
    figures["max_err"] = max(one["max_err"] for one in found)
    emit(figures | {"folds": len(found)}, args)


if __name__ == "__main__":
    run_program("he-trees", main)
