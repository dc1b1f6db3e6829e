"""Drift: false alarms and found shifts of whole tables, against two usual rules on the same tables.

A table has twelve columns: heavy-tailed and skewed numbers, numbers with ties and many zeros, texts
of few and of many levels, a column of names, and missing cells. Without drift, both tables are
drawn from one source: any alarm is false, whatever the column. With drift, one column is shifted by
a stated size. The usual rules are a test per column at .05 without correction (Kolmogorov-Smirnov
for numbers, chi-square for texts and missing cells) and PSI above .2. At a million rows a shift
below the floor must not alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp

from tasks.cleaning.profile.drift.columns import DriftConfig
from tasks.cleaning.profile.drift.statistics import binned, psi
from tasks.cleaning.profile.drift.table import drift
from tasks.fraud.report.curves import wilson
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

Rng = np.random.Generator
Draw = Callable[[Rng, int, float], list[str | None]]
SIZES = ((100, 100), (500, 500), (2_000, 2_000), (10_000, 500))
SHIFTS = (0.05, 0.1, 0.15, 0.2, 0.3)
STATED = 0.2
STATED_ROWS = (2_000, 2_000)
USUAL_ALPHA, USUAL_PSI = 0.05, 0.2


def _texts(values: NDArray[Any]) -> list[str | None]:
    return [str(value) for value in values.tolist()]


def _levels(rng: Rng, n: int, levels: int, steep: float) -> NDArray[np.int64]:
    weight = np.arange(1, levels + 1) ** -steep
    return rng.choice(levels, n, p=weight / weight.sum())


def _replaced(rng: Rng, values: NDArray[np.int64], share: float, by: int) -> NDArray[np.int64]:
    """Return levels of which a share of the rows holds the level ``by`` instead."""
    return np.where(rng.random(len(values)) < share, by, values)


COLUMNS: Mapping[str, Draw] = {
    # Numbers shift by a share of the source's middle deviation (half the distance of the quartiles
    # over .6745); levels and missing cells by half that share of the rows.
    "normal": lambda r, n, s: _texts(r.normal(100.0 + 15.0 * s, 15.0, n).round(3)),
    "heavy": lambda r, n, s: _texts((r.standard_t(2, n) + 1.21 * s).round(4)),
    "cauchy": lambda r, n, s: _texts((r.standard_cauchy(n) + 1.48 * s).round(4)),
    "skewed": lambda r, n, s: _texts((r.lognormal(3.0 + 1.2 * s, 1.2, n)).round(2)),
    "counts": lambda r, n, s: _texts(r.poisson(2.0 + 1.41 * s, n)),
    "rounded": lambda r, n, s: _texts((r.normal(40.0 + 12.0 * s, 12.0, n) / 5.0).round() * 5.0),
    "zeros": lambda r, n, s: _texts(
        (r.lognormal(2.0, 1.0, n) * (r.random(n) < 0.3 + s / 2)).round(2)
    ),
    "few": lambda r, n, s: [f"kind {v}" for v in _replaced(r, _levels(r, n, 5, 1.0), s / 2, 4)],
    "many": lambda r, n, s: [f"code {v}" for v in _replaced(r, _levels(r, n, 400, 1.1), s / 2, 30)],
    "names": lambda r, n, s: [
        f"item-{v}" if u >= s / 2 else f"ITEM {v}"
        for v, u in zip(r.integers(0, 10**8, n).tolist(), r.random(n).tolist(), strict=True)
    ],
    "missing": lambda r, n, s: [
        None if u < 0.1 + s / 2 else v
        for v, u in zip(_texts(r.normal(0.0, 1.0, n).round(3)), r.random(n).tolist(), strict=True)
    ],
    "constant": lambda r, n, s: ["A" if u >= s / 2 else "B" for u in r.random(n).tolist()],
}


def tables(
    rng: Rng, n: int, m: int, shifted: str = "", shift: float = 0.0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a reference of n rows and a table of m rows, one column of it shifted."""
    made = []
    for rows, size in ((n, 0.0), (m, shift)):
        cells = {
            name: draw(rng, rows, size if name == shifted else 0.0)
            for name, draw in COLUMNS.items()
        }
        made.append(pl.DataFrame(cells, schema=dict.fromkeys(COLUMNS, pl.String)))
    return made[0], made[1]


def usual(reference: pl.DataFrame, current: pl.DataFrame) -> tuple[set[str], set[str]]:
    """Return the columns on which an uncorrected test, and those on which PSI above .2, alarms.

    Columns of names, whose values hardly repeat, are left out: neither rule is meant for them.
    """
    tested, index = set(), set()
    for name in COLUMNS:
        a, b = reference[name], current[name]
        gone = np.array([one.null_count() for one in (a, b)])
        if gone.any():
            held = np.array([gone, [a.len(), b.len()] - gone])
            if chi2_contingency(held).pvalue <= USUAL_ALPHA:
                tested.add(name)
        x, y = (one.drop_nulls().cast(pl.Float64, strict=False).to_numpy() for one in (a, b))
        if np.isfinite(x).all():
            p, change = ks_2samp(x, y, method="asymp").pvalue, psi(*binned(x, y))
        else:
            counts = [one.alias("t").value_counts() for one in (a, b)]
            both = counts[0].join(counts[1], on="t", how="full", coalesce=True)
            levels = both.drop("t").fill_null(0).to_numpy().T
            if not 1 < levels.shape[1] < a.len() / 2:
                continue
            p, change = chi2_contingency(levels).pvalue, psi(levels[0], levels[1])
        if p <= USUAL_ALPHA:
            tested.add(name)
        if change > USUAL_PSI:
            index.add(name)
    return tested, index


def false_alarms(
    sizes: Sequence[tuple[int, int]], seeds: int, seed: int, alpha: float
) -> dict[str, Any]:
    """Return the shares of tables without drift that alarm, per size and over all."""
    config = DriftConfig(alpha=alpha)
    hits = dict.fromkeys(("engine", "floorless", "usual", "psi", "psi_few"), 0)
    result: dict[str, Any] = {}
    for n, m in sizes:
        here = dict.fromkeys(hits, 0)
        for k in range(seeds):
            both = tables(np.random.default_rng((seed, n, m, k)), n, m)
            verdict = drift(*both, config).verdict
            tested, index = usual(*both)
            here["engine"] += verdict == "drifted"
            here["floorless"] += verdict in {"drifted", "slight"}
            here["usual"] += bool(tested)
            here["psi"] += bool(index)
            here["psi_few"] += bool(index - {"many"})  # 400 levels: more than the rule is made for
        for name, count in here.items():
            hits[name] += count
            result[f"{name}_false_{n}_{m}"] = count / seeds
    trials = seeds * len(sizes)
    low, high = wilson(hits["engine"], trials)
    worst = max(result[f"engine_false_{n}_{m}"] for n, m in sizes)
    return {
        "false_alarm_rate": hits["engine"] / trials,
        "false_alarm_low": low,
        "false_alarm_high": high,
        "false_alarm_worst_size": worst,
        "nominal": alpha,
        "floorless_false_alarm_rate": hits["floorless"] / trials,
        "usual_false_alarm_rate": hits["usual"] / trials,
        "psi_false_alarm_rate": hits["psi"] / trials,
        "psi_few_false_alarm_rate": hits["psi_few"] / trials,
        "tables_without_drift": trials,
        **result,
    }


def detections(
    rows: tuple[int, int], shifts: Sequence[float], seeds: int, seed: int, alpha: float
) -> dict[str, Any]:
    """Return the shares of shifted columns that alarm, per shift and column."""
    config = DriftConfig(alpha=alpha)
    result: dict[str, Any] = {}
    for shift in shifts:
        found: dict[str, int] = {}
        for place, name in enumerate(COLUMNS):
            found[name] = index = tested = 0
            for k in range(seeds):
                rng = np.random.default_rng((seed, 1, place, k))
                both = tables(rng, *rows, name, shift)
                found[name] += drift(*both, config).columns[name] == "drifted"
                if shift == STATED:
                    alone = usual(*both)
                    tested += name in alone[0]
                    index += name in alone[1]
            if shift == STATED:
                result[f"detect_{name}"] = found[name] / seeds
                result["usual_detect_rate"] = result.get("usual_detect_rate", 0.0) + tested
                result["psi_detect_rate"] = result.get("psi_detect_rate", 0.0) + index
        hits, trials = sum(found.values()), seeds * len(COLUMNS)
        result[f"detect_at_{shift:g}"] = hits / trials
        if shift == STATED:
            low, high = wilson(hits, trials)
            result |= {"detect_rate": hits / trials, "detect_low": low, "detect_high": high}
            for name in ("usual_detect_rate", "psi_detect_rate"):
                result[name] /= trials
    return result


def negligible(rows: int, seeds: int, seed: int) -> dict[str, Any]:
    """Return alarms on numbers of many rows whose shift is real, but a gap of .012 (floor .05)."""
    engine = plain = 0
    for k in range(seeds):
        rng = np.random.default_rng((seed, 2, k))
        a, b = rng.normal(0.0, 1.0, rows), rng.normal(0.03, 1.0, rows)
        frames = [pl.DataFrame({"x": x.round(4)}).cast(pl.String) for x in (a, b)]
        engine += drift(*frames).verdict == "drifted"
        plain += bool(ks_2samp(a, b, method="asymp").pvalue <= USUAL_ALPHA)
    return {"negligible_alarms": engine / seeds, "negligible_usual_alarms": plain / seeds}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("drift", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=250, help="tables without drift per size")
    made.add_argument("--alpha", type=float, default=0.05, help="promised false alarms per table")
    args = made.parse_args(argv)
    sizes, seeds, shifts = SIZES, args.seeds, SHIFTS
    shifted, large = 10, (1_000_000, 10)
    if args.smoke:
        sizes, seeds, shifts, shifted, large = SIZES[:1], 8, (STATED,), 1, (50_000, 1)
    with stopwatch() as took:
        result = false_alarms(sizes, seeds, args.seed, args.alpha)
        result |= detections(STATED_ROWS, shifts, shifted, args.seed, args.alpha)
        result |= negligible(*large, args.seed)
    result |= {"stated_shift": STATED, "rows": STATED_ROWS[0], "cpu_seconds": took.cpu}
    table(
        f"drift: {result['tables_without_drift']:,} tables without drift, {len(COLUMNS)} columns",
        ("way", "false alarms", f"found at {STATED:g}"),
        [
            ("engine", result["false_alarm_rate"], result["detect_rate"]),
            ("tests at .05", result["usual_false_alarm_rate"], result["usual_detect_rate"]),
            ("PSI > .2", result["psi_false_alarm_rate"], result["psi_detect_rate"]),
        ],
        note=f"promised: {args.alpha:g} of the tables without drift at most",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("drift", main)
