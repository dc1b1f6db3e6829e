"""Clean-tables: wrong numbers found without labels in many small tables, against three usual ways.

All cells of all tables are pooled. The engine's findings of confidence one half and above count,
whatever the table. z-score (3), interquartile distance (1.5) and isolation forests (a forest per
column, 0 of scikit-learn's decision function) get their usual threshold for all tables, and, as a
line that needs the truth, the threshold that is best on it. Weights of the engine were chosen on
the first 30 tables by name: ``rest_`` keys are the others alone. Then rows are labelled, the rows
to be labelled chosen by the engine or by chance; half of each table's rows are never labelled,
and judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from tasks.cleaning.detect.active import evidence_of, next_row, refined
from tasks.cleaning.detect.cells import doubtful_cells
from tasks.cleaning.detect.numbers import numbers_of
from tasks.cleaning.detect.outliers import OutlierConfig
from tests.benchmarks._dirty_tables import DirtyTable, data_folder, made_up_tables, read_tables
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

Floats = NDArray[np.float64]
CHOSEN_ON = 30
USUAL = {"z": 3.0, "iqr": 1.5, "forest": 0.0}
LABELS = (0, 1, 2, 5, 10, 20)
LEAST_ROWS = 50
NOTHING = -1e9


def engine(one: DirtyTable, config: OutlierConfig | None = None) -> Floats:
    """Return the highest confidence of any finding per cell, 0 where there is none."""
    confidence = np.zeros(one.wrong.shape)
    found = doubtful_cells(one.frame, least=0.0, config=config)
    place = {name: i for i, name in enumerate(one.frame.columns)}
    columns = np.array([place[name] for name in found["column"]], int)
    np.maximum.at(confidence, (found["row"].to_numpy(), columns), found["confidence"].to_numpy())
    return confidence


def usual_ways(one: DirtyTable, trees: int, seed: int) -> dict[str, Floats]:
    """Return the scores of z-score, interquartile distance and isolation forests per cell."""
    made = {name: np.full(one.wrong.shape, NOTHING) for name in USUAL}
    for place, name in enumerate(one.frame.columns):
        numbers = numbers_of(one.frame[name])
        if numbers is None:
            continue
        x = numbers.values
        low, high = np.quantile(x, [0.25, 0.75])
        beyond = np.maximum(low - x, x - high)
        forest = IsolationForest(n_estimators=trees, random_state=seed).fit(x[:, None])
        cells = (numbers.rows, place)
        made["z"][cells] = np.abs(x - x.mean()) / max(x.std(), 1e-300)
        made["iqr"][cells] = np.clip(beyond / max(high - low, 1e-12), NOTHING, -NOTHING)
        made["forest"][cells] = -forest.decision_function(x[:, None])
    return made


def rates(wrong: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    hits = float((wrong & flagged).sum())
    p, r = hits / max(flagged.sum(), 1), hits / max(wrong.sum(), 1)
    return p, r, 2 * hits / max(flagged.sum() + wrong.sum(), 1)


def best_f1(wrong: NDArray[np.bool_], score: Floats) -> float:
    """Return the best F1 of any one threshold."""
    order = np.argsort(-score, kind="stable")
    last = np.append(score[order][1:] != score[order][:-1], True)
    hits, flagged = np.cumsum(wrong[order]), np.arange(1, len(order) + 1)
    return float((2 * hits / (flagged + wrong.sum()))[last].max())


def lead(counts: Mapping[str, Floats], draws: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the engine's F1 less the best usual way's, tables redrawn.

    Args:
        counts: Per way hits, flagged cells and wrong cells per table [tables, 3].
        draws: Bootstrap draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    n = len(counts["engine"])
    gains = []
    for _ in range(draws):
        drawn = rng.integers(0, n, n)
        f1 = {}
        for name, each in counts.items():
            hits, flagged, wrong = each[drawn].sum(0)
            f1[name] = 2 * hits / max(flagged + wrong, 1)
        gains.append(f1["engine"] - max(f1[name] for name in USUAL))
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def pooled(
    tables: Sequence[DirtyTable], scores: Mapping[str, Sequence[Floats]]
) -> tuple[NDArray[np.bool_], dict[str, Floats]]:
    """Return truth and scores of all judged cells."""
    wrong = np.concatenate([t.wrong[t.judged].ravel() for t in tables])
    return wrong, {
        name: np.concatenate([s[t.judged].ravel() for t, s in zip(tables, each, strict=True)])
        for name, each in scores.items()
    }


def calibration_error(wrong: NDArray[np.bool_], confidence: Floats) -> float:
    """Return the mean gap between confidence and share wrong in ten equal bins, findings only."""
    found = confidence >= 0.5
    bins = np.minimum((confidence[found] * 20).astype(int), 19)
    gaps = [
        abs(confidence[found][bins == b].mean() - wrong[found][bins == b].mean())
        * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def labelled(
    tables: Sequence[DirtyTable], seed: int | None, marks: Sequence[int]
) -> dict[int, float]:
    """Return F1 on rows never labelled for numbers of labelled rows per table.

    Args:
        tables: Tables.
        seed: Of rows drawn by chance; None: the engine chooses.
        marks: Numbers of labelled rows.
    """
    counts = {mark: np.zeros(3) for mark in marks}
    for one in tables:
        height = one.frame.height
        if height < LEAST_ROWS or not one.judged.all():
            continue
        test = np.random.default_rng(height).permutation(height)
        test, pool = test[: height // 2], np.sort(test[height // 2 :])
        drawn = np.random.default_rng(seed or 0).permutation(pool)
        evidence, rows = evidence_of(one.frame), []
        for k in range(max(marks) + 1):
            probability = refined(evidence, rows, one.wrong[rows])
            if k in counts:
                flagged, wrong = probability[test] >= 0.5, one.wrong[test]
                counts[k] += ((flagged & wrong).sum(), flagged.sum(), wrong.sum())
            chosen = next_row(evidence, rows, probability, pool) if seed is None else int(drawn[k])
            rows.append(chosen)
    return {k: float(2 * h / max(f + w, 1)) for k, (h, f, w) in counts.items()}


def label_curves(
    tables: Sequence[DirtyTable], seeds: int, marks: Sequence[int]
) -> dict[str, float]:
    """Return F1 per number of labelled rows, chosen by the engine and by chance (mean of seeds)."""
    chosen = labelled(tables, None, marks)
    chance = [labelled(tables, 1 + s, marks) for s in range(seeds)]
    result = {f"f1_{k}_rows": f1 for k, f1 in chosen.items()}
    for k in marks:
        each = [one[k] for one in chance]
        result[f"f1_{k}_random_rows"] = float(np.mean(each))
        result[f"f1_{k}_random_rows_best"] = float(np.max(each))
    return result


def figures(
    tables: Sequence[DirtyTable], scores: Mapping[str, Sequence[Floats]], prefix: str
) -> dict[str, float]:
    """Return the keys of some tables."""
    wrong, flat = pooled(tables, scores)
    p, r, f1 = rates(wrong, flat["engine"] >= 0.5)
    made = {"detect_p": p, "detect_r": r, "detect_f1": f1}
    made["no_format_f1"] = rates(wrong, flat["no_format"] >= 0.5)[2]
    made["auroc"] = float(roc_auc_score(wrong, flat["engine"]))
    made["oracle_f1"] = best_f1(wrong, flat["engine"])
    made["calibration_error"] = calibration_error(wrong, flat["engine"])
    for name, usual in USUAL.items():
        made[f"{name}_f1"] = rates(wrong, flat[name] > usual)[2]
        made[f"{name}_oracle_f1"] = best_f1(wrong, flat[name])
        made[f"{name}_auroc"] = float(roc_auc_score(wrong, flat[name]))
    return {prefix + key: value for key, value in made.items()}


def per_table(
    tables: Sequence[DirtyTable], scores: Mapping[str, Sequence[Floats]]
) -> dict[str, Floats]:
    """Return hits, flagged and wrong cells per table of every way at its own threshold."""
    made = {}
    for name in ("engine", *USUAL):
        rows = []
        for t, s in zip(tables, scores[name], strict=True):
            flagged = (s >= 0.5) if name == "engine" else (s > USUAL[name])
            flagged, wrong = flagged[t.judged], t.wrong[t.judged]
            rows.append([(flagged & wrong).sum(), flagged.sum(), wrong.sum()])
        made[name] = np.array(rows, float)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("clean-tables", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of tables (else PENSTOCK_DATA)")
    args = made.parse_args(argv)
    folder = None if args.smoke else data_folder(args.data)
    if not args.smoke and folder is None:
        raise ValueError("no tables: name their folder by --data FOLDER or PENSTOCK_DATA")
    tables = read_tables(folder) if folder else made_up_tables(args.seed, tables=4)
    trees, seeds, marks = (10, 2, (0, 2, 5)) if args.smoke else (50, 10, LABELS)

    scores: dict[str, list[Floats]] = {name: [] for name in ("engine", "no_format", *USUAL)}
    plain = replace(OutlierConfig(), format=0.0)
    with stopwatch() as took:
        scores["engine"] = [engine(one) for one in tables]
    for one in tables:
        scores["no_format"].append(engine(one, plain))
        for name, score in usual_ways(one, trees, args.seed).items():
            scores[name].append(score)

    result: dict[str, Any] = figures(tables, scores, "")
    rest = tables[CHOSEN_ON:]
    if rest:
        others = {name: each[CHOSEN_ON:] for name, each in scores.items()}
        result |= figures(rest, others, "rest_")
        low, high = lead(per_table(rest, others), 2_000, args.seed)
        result |= {"rest_lead_low": low, "rest_lead_high": high}
    with stopwatch() as labelling:
        result |= label_curves(rest or tables, seeds, marks)
    result |= {
        "tables": len(tables),
        "cells": int(sum(t.judged.sum() * t.frame.width for t in tables)),
        "wrong_cells": int(sum(t.wrong.sum() for t in tables)),
        "seconds": took.wall,
        "cpu_seconds": took.cpu,
        "labelling_cpu_seconds": labelling.cpu,
    }
    table(
        f"clean-tables: {result['tables']} tables, {result['wrong_cells']:,} wrong cells",
        ("way", "F1", "best F1 with the truth", "AUROC"),
        [
            ("engine", result["detect_f1"], result["oracle_f1"], result["auroc"]),
            *(
                (name, result[f"{name}_f1"], result[f"{name}_oracle_f1"], result[f"{name}_auroc"])
                for name in USUAL
            ),
        ],
        note=f"engine: precision {result['detect_p']:.3f}, recall {result['detect_r']:.3f}",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-tables", main)
