"""Clean-sensors: faults of made-up series found and repaired, against the usual filters.

Series of several kinds of process (``_sensor_series.py``) carry faults of known place. Rules are
inferred from the spoilt series alone; only the peer is named, as a person would. A fault counts as
found where a finding of its rule, half sure or surer, stands in its row (a gap's in the row after).
Repair is judged on series with spikes alone: RMSE to the truth in steps of the process, and the
share of right readings that were changed, which is held against the promise. The usual ways
(median filter, Hampel filter, z-score with interpolation, SCREEN) get their usual settings, SCREEN
the speed that was inferred. What was tuned was tuned on seeds below 100; others are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.sensors.check import sensor_findings
from tasks.cleaning.sensors.gaps import fill_gaps
from tasks.cleaning.sensors.infer import infer_rules
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.sensors.readings import numbers
from tasks.cleaning.sensors.speed import minimum_change, screen
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._sensor_series import FAULTS, INTERVAL, KINDS, START, MadeUp, made_up

Floats = NDArray[np.float64]
FIRST_SEED = 100
WAYS = ("engine", "accepted", "screen", "minimum_change", "median", "hampel", "z")
MAD = 1.4826
ALPHA = 0.01
SMOKE_KINDS = ("walk", "wave", "coarse")


def rules_of(one: MadeUp) -> SensorRules:
    """Return rules inferred from the spoilt series, the peer named."""
    rules = infer_rules(one.frame, "value", "time")
    if rules is None:
        raise ValueError("a series is too short to infer anything from")
    return replace(rules, peers=("peer",))


def detection(one: MadeUp) -> dict[str, Floats]:
    """Return hits, rows found and rows at fault by kind of fault, with rules inferred."""
    found, _ = sensor_findings(one.frame, rules_of(one), ALPHA)
    counts = {}
    for fault in FAULTS:
        mine = found.filter(pl.col("rule").str.starts_with(fault))
        if fault != "gap":
            mine = mine.filter(pl.col("confidence") >= 0.5)
        flagged = np.zeros(one.frame.height, bool)
        flagged[mine["row"].to_numpy()] = True
        wrong = one.wrong[fault]
        counts[fault] = np.array([(flagged & wrong).sum(), flagged.sum(), wrong.sum()], float)
    return counts


def repaired(one: MadeUp) -> tuple[dict[str, Floats], float]:
    """Return the readings that every way leaves behind, and the share of harm that was promised."""
    rules = rules_of(one)
    found, bounds = sensor_findings(one.frame, rules, ALPHA)
    values = numbers(one.frame["value"])
    mine = found.filter(pl.col("repairable") & (pl.col("column") == "value"))
    alone = mine.filter(pl.col("confidence") > 0.5)
    used = set(alone["rule"].to_list())
    times = START + INTERVAL * np.arange(len(values))
    made = {"engine": _put(values, alone), "accepted": _put(values, mine)}
    rate = rules.max_rate or np.inf
    made["screen"] = screen(times, values, rate, 5 * INTERVAL) if rules.max_rate else values
    made["minimum_change"] = minimum_change(times, values, rate) if rules.max_rate else values
    made |= usual_ways(values)
    return made, sum(its.rate for name, its in bounds.items() if name in used)


def usual_ways(values: Floats) -> dict[str, Floats]:
    """Return what median filter (5), Hampel filter (7, 3 deviations) and z-score (3) leave."""
    five, seven = (
        np.lib.stride_tricks.sliding_window_view(np.pad(values, k, "edge"), 2 * k + 1)
        for k in (2, 3)
    )
    middle = np.median(seven, axis=1)
    spread = MAD * np.median(np.abs(seven - middle[:, None]), axis=1)
    odd = np.abs(values - middle) > 3.0 * spread
    far = np.abs(values - values.mean()) > 3.0 * values.std()
    places = np.arange(len(values))
    return {
        "median": np.median(five, axis=1),
        "hampel": np.where(odd, middle, values),
        "z": np.where(far, np.interp(places, places[~far], values[~far]), values),
    }


def _put(values: Floats, found: pl.DataFrame) -> Floats:
    made = values.copy()
    first = found.unique("row", keep="first", maintain_order=True)
    made[first["row"].to_numpy()] = numbers(first["suggestion"])
    return made


def judged(one: MadeUp, made: Mapping[str, Floats]) -> dict[str, tuple[float, float]]:
    """Return RMSE in steps of the process and the share of right readings changed, by way."""
    right = one.clean
    before = numbers(one.frame["value"])
    return {
        name: (
            float(np.sqrt(np.mean((values - one.truth) ** 2))) / one.noise,
            float(np.mean(np.abs(values - before)[right] > 1e-9)),
        )
        for name, values in (("dirty", before), *made.items())
    }


def gap_coverage(kind: str, seed: int, n: int) -> tuple[float, float]:
    """Return the share of lost readings inside their 95 % interval, and their number."""
    one = made_up(kind, seed, n, ("gap",))
    whole = made_up(kind, seed, n, ())
    rules = replace(rules_of(one), peers=())
    told = fill_gaps(one.frame, rules, longest=200 * INTERVAL)
    truth = told.join(
        whole.frame.select("time", pl.col("value").cast(pl.Float64).alias("true")), on="time"
    )
    inside = (truth["true"] >= truth["low"] - 1e-9) & (truth["true"] <= truth["high"] + 1e-9)
    return float(inside.sum()), float(truth.height)


def rates(counts: Floats) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    hits, flagged, wrong = counts
    return hits / max(flagged, 1), hits / max(wrong, 1), 2 * hits / max(flagged + wrong, 1)


def detections(kinds: Sequence[str], seeds: Sequence[int], n: int) -> dict[str, Any]:
    """Return the keys of detection: pooled figures, the spread of F1 over seeds, F1 by process."""
    counts = {(kind, s): detection(made_up(kind, s, n)) for kind in kinds for s in seeds}
    result: dict[str, Any] = {}
    for fault in FAULTS:
        pooled = sum(one[fault] for one in counts.values())
        result |= dict(zip((f"{fault}_p", f"{fault}_r", f"{fault}_f1"), rates(pooled), strict=True))
        by_seed = [rates(sum(counts[kind, s][fault] for kind in kinds))[2] for s in seeds]
        result[f"{fault}_f1_sd"] = float(np.std(by_seed, ddof=1))
        for kind in kinds:
            result[f"{fault}_f1_{kind}"] = rates(sum(counts[kind, s][fault] for s in seeds))[2]
    clean = [
        sensor_findings(one.frame, rules_of(one))[0]
        for one in (made_up(k, s, n, ()) for k in kinds for s in seeds)
    ]
    sure = sum(f.filter(pl.col("confidence") >= 0.5)["row"].n_unique() for f in clean)
    result["false_alarms_per_million"] = 1e6 * sure / (n * len(clean))
    return result


def repairs(kinds: Sequence[str], seeds: Sequence[int], n: int) -> dict[str, Any]:
    """Return the keys of repair: RMSE and harm of every way, and the promise."""
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ("dirty", *WAYS)}
    promises, kept, by_kind = [], [], {kind: [] for kind in kinds}
    for kind in kinds:
        for seed in seeds:
            one = made_up(kind, seed, n, ("spike",))
            made, promised = repaired(one)
            each = judged(one, made)
            for name, score in each.items():
                scores[name].append(score)
            promises.append(promised)
            kept.append(each["engine"][1] <= promised)
            by_kind[kind].append(each)
    result: dict[str, Any] = {}
    for name, both in scores.items():
        rmse, harm = (np.array(part) for part in zip(*both, strict=True))
        by_seed = rmse.reshape(len(kinds), -1).mean(0)
        result |= {
            f"{name}_rmse": rmse.mean(),
            f"{name}_rmse_sd": by_seed.std(ddof=1),
            f"{name}_harm": harm.mean(),
        }
    for kind, many in by_kind.items():
        for name in ("dirty", "engine", "accepted", "screen", "hampel"):
            result[f"{name}_rmse_{kind}"] = float(np.mean([one[name][0] for one in many]))
        result[f"engine_harm_{kind}"] = float(np.mean([one["engine"][1] for one in many]))
    result |= {
        "promised_harm": float(np.mean(promises)),
        "promise_kept_share": float(np.mean(kept)),
        "worst_harm": float(max(harm for _, harm in scores["engine"])),
        "series": len(promises),
    }
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parser("clean-sensors", __doc__.splitlines()[0]).parse_args(argv)
    count, n, kinds = (2, 2_500, SMOKE_KINDS) if args.smoke else (10, 4_000, KINDS)
    seeds = range(FIRST_SEED + args.seed, FIRST_SEED + args.seed + count)
    result = detections(kinds, seeds, n) | repairs(kinds, seeds, n)
    covered = np.sum([gap_coverage(kind, s, n) for kind in kinds for s in seeds], axis=0)
    result["gap_interval_coverage"] = covered[0] / max(covered[1], 1.0)
    big = made_up("walk", FIRST_SEED, 5_000 if args.smoke else 100_000)
    rules = rules_of(big)
    with stopwatch() as took:
        sensor_findings(big.frame, rules)
    result["readings_per_cpu_second"] = big.frame.height / took.cpu
    table(
        f"clean-sensors: faults found, {count} seeds of {len(kinds)} processes",
        ("fault", "precision", "recall", "F1", "sd of F1 over seeds"),
        [(f, *(result[f"{f}_{k}"] for k in ("p", "r", "f1", "f1_sd"))) for f in FAULTS],
    )
    table(
        "spikes repaired",
        ("way", "RMSE, steps of the process", "sd over seeds", "right readings changed"),
        [(w, *(result[f"{w}_{k}"] for k in ("rmse", "rmse_sd", "harm"))) for w in ("dirty", *WAYS)],
        note=f"promised: {result['promised_harm']:.4f}; engine: what it does alone, accepted: all",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-sensors", main)
