"""Label errors: how well wrong labels are ranked, against published scores, and what it gains.

Three parts. *Made-up tables* with known noise: cross-validated probabilities, errors found per
reviewed item, whether probabilities of being wrong are right, and accuracy on clean test labels
after removing or relabelling. *Injected errors* in four public sets, whose probabilities stay as
they were. *Verdicts* of five raters on preselected candidates of the same sets, ranked inside the
candidates. The baseline is cleanlab's default, self-confidence; its other scores stand beside it,
all on the same probabilities. The headline is the default score, which is chosen by made-up tables
of other seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.cleaning.labels.crossval import ModelName, accuracy_after, out_of_sample
from tasks.cleaning.labels.figures import auroc, found_per_reviewed, times_random
from tasks.cleaning.labels.queue import review_queue
from tasks.cleaning.labels.ranking import DEFAULT, SCORES, doubts
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._label_sets import INJECTIONS, SETS, LabelSet, inject, made_up, read_set

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "self_confidence"
DRAWS = 2_000
Interval = tuple[float, float, float]


def interval(values: Sequence[float], seed: int) -> Interval:
    """Return mean and 95 % bootstrap interval of one value per seed."""
    v = np.asarray(values)
    draws = np.random.default_rng(seed).choice(v, (DRAWS, len(v))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(v.mean()), float(low), float(high)


def one_table(rows: int, model: ModelName, seed: int) -> dict[str, float]:
    """Return the figures of one made-up table."""
    data = made_up(rows, seed)
    names = [str(k) for k in data.given]
    held = out_of_sample(data.x, names, model=model, seed=seed)
    wrong = data.given != data.clean
    figures: dict[str, float] = {"rate": float(wrong.mean())}
    for score in SCORES:
        doubt = doubts(held.labels, held.probabilities, score)
        figures[f"auroc_{score}"] = auroc(doubt, wrong)
        figures[f"found_{score}"] = found_per_reviewed(doubt, wrong, int(wrong.sum()))
        figures[f"x_random_{score}"] = times_random(doubt, wrong)
    queue = review_queue(held.labels, held.probabilities, held.classes).sort("row")
    likely = queue["wrong_probability"].to_numpy()
    figures["calibration_error"] = calibration_error(likely, wrong)
    figures["expected_rate"] = float(likely.mean())
    doubtful = np.flatnonzero(likely > 0.5)
    suggestion = queue["suggested"].cast(int).to_numpy()[doubtful]
    figures["doubtful"] = len(doubtful) / rows
    figures["suggestion_right"] = float((suggestion == data.clean[doubtful]).mean())

    def accuracy(labels: np.ndarray, effect: Any) -> float:
        return accuracy_after(
            (data.x, labels), (data.test_x, data.test_y), doubtful, suggestion,
            effect=effect, model=model, seed=seed,
        )  # fmt: skip

    return figures | {
        "accuracy_as_given": accuracy(data.given, None),
        "accuracy_removed": accuracy(data.given, "remove"),
        "accuracy_relabelled": accuracy(data.given, "relabel"),
        "accuracy_clean": accuracy(data.clean, None),
    }


def calibration_error(likely: np.ndarray, wrong: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error over ``bins`` bins of equal counts."""
    parts = np.array_split(np.argsort(likely, kind="stable"), bins)
    return float(sum(abs(likely[b].sum() - wrong[b].sum()) for b in parts) / len(likely))


def tables_part(rows: int, model: ModelName, seeds: int, seed: int) -> dict[str, Any]:
    """Return mean figures over made-up tables, and paired gains with their intervals."""
    each = [one_table(rows, model, seed + k) for k in range(seeds)]
    result: dict[str, Any] = {k: float(np.mean([f[k] for f in each])) for k in each[0]}
    for effect in ("removed", "relabelled"):
        gains = [f[f"accuracy_{effect}"] - f["accuracy_as_given"] for f in each]
        result[f"gain_{effect}"], low, high = interval(gains, seed)
        result[f"gain_{effect}_interval"] = [low, high]
    for score in SCORES:
        paired = [f[f"auroc_{score}"] - f[f"auroc_{BASELINE}"] for f in each]
        result[f"auroc_gain_{score}"] = interval(paired, seed)
    result |= {"seeds": seeds, "rows": rows, "model": model}
    return result


def injected_part(sets: Mapping[str, LabelSet], seeds: int) -> dict[str, dict[str, float]]:
    """Return score -> AUROC by set, by kind of error and in all, among rows the model disputes."""
    cells: dict[str, dict[tuple[str, str], list[float]]] = {s: {} for s in SCORES}
    for name, data in sets.items():
        for kind in INJECTIONS:
            for seed in range(seeds):
                y, wrong = inject(data.y, data.p, kind, np.random.default_rng(seed))
                disputed = data.p.argmax(axis=1) != y
                for score in SCORES:
                    value = auroc(doubts(y, data.p, score)[disputed], wrong[disputed])
                    cells[score].setdefault((name, kind), []).append(value)
    return {
        score: {
            "all": float(np.mean(list(got.values()))),
            **{k: float(np.mean([v for (_, kind), v in got.items() if kind == k]))
               for k in INJECTIONS},
            **{s: float(np.mean([v for (name, _), v in got.items() if name == s])) for s in sets},
        }
        for score, got in cells.items()
    }  # fmt: skip


def resampled(wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return candidates drawn again, errors and correct labels apart."""
    parts = [np.flatnonzero(wrong), np.flatnonzero(~wrong)]
    return np.concatenate([rng.choice(part, len(part)) for part in parts])


def gains(
    sets: Mapping[str, LabelSet],
    doubt: Callable[[str, str], np.ndarray],
    seed: int,
    draws: int,
) -> Any:
    """Return score -> set -> paired gains over the baseline [draws], a resample for all scores."""
    rng = np.random.default_rng(seed)
    out = {score: {name: np.zeros(draws) for name in sets} for score in SCORES}
    for name, data in sets.items():
        columns = {score: doubt(name, score) for score in SCORES}
        for draw in range(draws):
            rows = resampled(data.wrong, rng)
            values = {s: auroc(c[rows], data.wrong[rows]) for s, c in columns.items()}
            for score, value in values.items():
                out[score][name][draw] = value - values[BASELINE]
    return out


def verdicts_part(sets: Mapping[str, LabelSet], seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """Return the figures inside the candidates that raters checked."""
    checked = {name: data for name, data in sets.items() if len(data.rows)}
    scored = {(n, s): doubts(d.y, d.p, s)[d.rows] for n, d in checked.items() for s in SCORES}
    drawn = gains(checked, lambda name, score: scored[name, score], seed, draws)
    result: dict[str, Any] = {}
    by_score: dict[str, Any] = {}
    for score in SCORES:
        areas = {n: auroc(scored[n, score], d.wrong) for n, d in checked.items()}
        ahead = {n: a - auroc(scored[n, BASELINE], checked[n].wrong) for n, a in areas.items()}
        pooled = np.mean(list(drawn[score].values()), axis=0)
        by_score[score] = {
            "auroc": areas,
            "x_random": {n: times_random(scored[n, score], d.wrong) for n, d in checked.items()},
            "gain": ahead,
            "gain_interval": {n: np.quantile(g, (0.025, 0.975)) for n, g in drawn[score].items()},
            "pooled_gain": float(np.mean(list(ahead.values()))),
            "pooled_gain_low": float(np.quantile(pooled, 0.025)),
            "pooled_gain_high": float(np.quantile(pooled, 0.975)),
            "sets_ahead_of_cleanlab": sum(g > 0 for g in ahead.values()),
            "worst_loss": max(0.0, -min(ahead.values())),
        }
    for name in SETS:
        known = name in checked
        for key, score in (("", DEFAULT), ("cleanlab_", BASELINE)):
            for figure in ("x_random", "auroc"):
                value = by_score[score][figure][name] if known else None
                result[f"{name}_{key}{figure}"] = value
        if known:
            result[f"{name}_ceiling"] = 1 / float(checked[name].wrong.mean())
    kept = ("sets_ahead_of_cleanlab", "pooled_gain", "pooled_gain_low", "pooled_gain_high",
            "worst_loss")  # fmt: skip
    result |= {key: by_score[DEFAULT][key] for key in kept}
    return {**result, "sets_measured": len(checked), "verdicts": by_score}


def default_data() -> Path:
    """Return the folder of the sets under ``PENSTOCK_DATA``."""
    folder = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data"))
    return folder / "cleaning" / "label_errors"


def show(result: Mapping[str, Any]) -> None:
    """Print the tables for people."""
    made = result["made_up"]
    rows = [(s, made[f"auroc_{s}"], made[f"found_{s}"], made[f"x_random_{s}"]) for s in SCORES]
    table(
        f"made-up tables: {made['seeds']} of {made['rows']} rows, {made['rate']:.1%} wrong",
        ("score", "AUROC", "found per reviewed", "times random"),
        rows,
        note=f"accuracy {made['accuracy_as_given']:.4f}, removed {made['accuracy_removed']:.4f}, "
        f"relabelled {made['accuracy_relabelled']:.4f}, clean {made['accuracy_clean']:.4f}",
    )
    if "verdicts" not in result:
        return
    verdicts, injected = result["verdicts"], result["injected"]
    sets = list(verdicts[BASELINE]["auroc"])
    table(
        f"verdicts of raters, AUROC inside {len(sets)} sets' candidates ({DEFAULT} was chosen)",
        ("score", "injected", *sets, "gain", "low", "high"),
        [
            (s, injected[s]["all"], *(v["auroc"][n] for n in sets), v["pooled_gain"],
             v["pooled_gain_low"], v["pooled_gain_high"])
            for s, v in verdicts.items()
        ],
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("label-errors", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, default=None, help="folder of *_pyx.npy and verdicts")
    args = made.parse_args(argv)
    size = (400, "logistic", 3) if args.smoke else (2_000, "lightgbm", 20)
    result: dict[str, Any] = {"made_up": tables_part(*size, args.seed)}
    folder = args.data or default_data()
    if args.data and not folder.is_dir():
        raise SystemExit(f"no folder {folder}: name the one with cifar10_pyx.npy with --data")
    if args.data or (not args.smoke and folder.is_dir()):
        sets = {name: read_set(folder, name) for name in SETS}
        result |= {"injected": injected_part(sets, 1 if args.smoke else 2)}
        result |= verdicts_part(sets, args.seed, 100 if args.smoke else DRAWS)
    show(result)
    emit(result, args)


if __name__ == "__main__":
    run_program("label-errors", main)
