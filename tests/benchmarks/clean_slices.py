"""Clean-slices: false alarms of slice reports, worst slices, rows made for gaps, imputation.

Four parts. *Slices*: tables in which nothing differs must stay silent, at a floor of nothing and at
the default one, and a million rows must not alarm by p-value alone (a plain z-test with the same
adjustment stands beside it). *Search*: one word and one pair of words are made worse; what is told
is held against the true chances. *Gaps*: rows are made in the training part for slices that
out-of-fold errors measured as gaps; accuracy there on rows that were never touched, against copies
and against nothing. *Imputation*: cells are masked, coverage against the nominal 90 %, width and
error against the column's median (or its commonest word) with a conformal interval of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.augment.tabular import AugmentConfig, augment_rows
from tasks.cleaning.augment.twins import assert_no_twins_across, families
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.repair.estimate import ImputeConfig
from tasks.cleaning.repair.impute import estimates
from tasks.cleaning.slices.gaps import gaps_of
from tasks.cleaning.slices.groups import slices_of
from tasks.cleaning.slices.intervals import adjusted
from tasks.cleaning.slices.search import worst_slices
from tasks.cleaning.slices.table import Figure, against_rest, slice_table
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._slice_tables import (
    Mechanism,
    grouped,
    machines,
    masked,
    planted,
    real_tables,
    to_fill,
)

Floats = NDArray[np.float64]
APART = ["worse", "better"]
NULLS = ("rate .05", "rate .3", "skewed mean", "mostly zeros")
MODELS = ("logistic", "forest", "lightgbm")
WAYS = ("nothing", "copies", "made")
PARTS = ("slices", "gaps", "impute")


def null_scores(kind: str, rows: int, rng: np.random.Generator) -> Floats:
    """Return scores that no column has to do with."""
    if kind.startswith("rate"):
        return (rng.random(rows) < float(kind.split()[1])).astype(np.float64)
    if kind == "skewed mean":
        return rng.lognormal(0, 1.5, rows)
    return (rng.random(rows) < 0.02) * rng.choice([0.1, 0.2], rows)


def null_part(seeds: int, rows: int) -> dict[str, Any]:
    """Return the share of tables with any false alarm, by kind of score."""
    told: dict[str, list[float]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng((seed, 1))  # not the draws of the columns
        slices = slices_of(grouped(rows, seed, 3), pairs=True)
        for kind in NULLS:
            scores = null_scores(kind, rows, rng)
            for name, floor in (("", 0.0), ("_default_floor", None)):
                figure = Figure(scores, floor=floor)
                frame = slice_table({kind: figure}, slices).frame
                told.setdefault(f"table{name}: {kind}", []).append(
                    frame["verdict"].is_in(APART).any()
                )
            found = worst_slices(Figure(scores, floor=0.0), slices).frame
            told.setdefault(f"search: {kind}", []).append(found.height > 0)
    shares = {key: float(np.mean(each)) for key, each in told.items()}
    worst = {
        f"false_alarms_{part}": max(v for k, v in shares.items() if k.startswith(f"{part}:"))
        for part in ("table", "table_default_floor", "search")
    }
    return {**worst, "false_alarms": shares, "null_seeds": seeds}


def many_rows_part(rows: int, seed: int) -> dict[str, Any]:
    """Return alarms on many rows with differences of no consequence: ours, and a plain z-test's."""
    frame = grouped(rows, seed)
    rng = np.random.default_rng((seed, 1))
    chance = 0.05 + 0.004 * np.isin(frame["c0"].to_numpy(), ["c0v1", "c0v3"])
    figure = Figure((rng.random(rows) < chance).astype(np.float64))
    with stopwatch() as took:
        slices = slices_of(frame, pairs=True)
        verdicts = slice_table({"score": figure}, slices).frame["verdict"]
    both = against_rest(figure, slices)
    share = figure.scores.mean()
    error = np.sqrt(share * (1 - share) * (1 / both.here.n + 1 / both.there.n))
    from scipy.stats import norm

    q, _ = adjusted(2 * norm.sf(np.abs(both.difference / error)), 0.05)
    return {
        "many_rows": rows,
        "many_rows_alarms": int(verdicts.is_in(APART).sum()),
        "many_rows_alike": int((verdicts == "alike").sum()),
        "many_rows_slices": len(verdicts),
        "many_rows_z_test_alarms": int((q <= 0.05).sum()),
        "many_rows_seconds": took.wall,
    }


def search_part(seeds: int, rows: int) -> dict[str, Any]:
    """Return the share of false slices among the told, and whether the planted ones are told."""
    false, word, pair = [], [], []
    for seed in range(seeds):
        frame = grouped(rows, seed)
        chance = planted(frame)
        draws = np.random.default_rng((seed, 1)).random(rows)
        scores = (draws < chance).astype(np.float64)
        slices = slices_of(frame, pairs=True)
        told = worst_slices(Figure(scores), slices, most=1_000)
        names = told.frame["slice"].to_list()
        wrong = 0
        for member in told.members:
            here = np.ones(rows, bool)
            sides = []
            for one in member:
                mine = frame.select(one.holds.alias("in"))["in"].to_numpy()
                here, sides = here & mine, [*sides, mine]
            beside = [~here] + ([side & ~here for side in sides] if len(sides) > 1 else [])
            wrong += any(chance[here].mean() - chance[b].mean() <= 0.02 for b in beside)
        false.append(wrong / max(len(names), 1))
        word.append("c0 = c0v2" in names)
        pair.append("c1 = c1v1 and c2 = c2v2" in names)
    return {
        "search_false_share": float(np.mean(false)),
        "search_found_word": float(np.mean(word)),
        "search_found_pair": float(np.mean(pair)),
        "search_seeds": seeds,
        "search_rows": rows,
    }


def features(frame: pl.DataFrame, contract: Contract) -> Floats:
    """Return numbers as they are and words one by one."""
    columns = []
    for name, column in contract.columns.items():
        if name == "fails":
            continue
        if column.domain:
            columns += [(frame[name] == v).to_numpy().astype(float) for v in column.domain]
        else:
            columns.append(frame[name].cast(pl.Float64).to_numpy())
    return np.column_stack(columns)


def classifier(name: str) -> Any:
    """Return a fresh model."""
    if name == "logistic":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(100, min_samples_leaf=3, random_state=0, n_jobs=1)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=80, num_leaves=15, random_state=0, deterministic=True, force_row_wise=True,
        n_jobs=1, verbose=-1,
    )  # fmt: skip


def gap_part(seeds: int, rows: int, models: Sequence[str]) -> dict[str, Any]:
    """Return accuracies in the gap slice and elsewhere, before and after rows were made."""
    from sklearn.model_selection import cross_val_predict

    got: dict[str, list[float]] = {}
    made_rows, measured = [], 0
    for seed in range(seeds):
        data = machines(rows + 6_000, seed)
        train, test = data.frame[:rows], data.frame[rows:]
        y, truth = train["fails"].to_numpy(), test["fails"].to_numpy()
        x, x_test = features(train, data.contract), features(test, data.contract)
        rare = (test["machine"] == "C").to_numpy()
        slices = slices_of(train, ["machine", "tool"])
        for model in models:
            guess = cross_val_predict(classifier(model), x, y, cv=5)
            report = slice_table({"error": Figure((guess != y).astype(np.float64))}, slices)
            gaps = gaps_of(report, slices)
            measured += any(gap.name == "machine = C" for gap in gaps)
            config = AugmentConfig(seed=seed)
            more = augment_rows(train, gaps, data.contract, "fails", config=config)
            parents = more.made["made_from"].to_list()
            place = ["train"] * rows + ["test"] * test.height + ["train"] * len(parents)
            assert_no_twins_across(place, families(rows + test.height, parents))
            made_rows.append(len(parents))
            copied = [mine[0] for mine in parents]
            sets = {
                "nothing": (x, y),
                "copies": (np.vstack([x, x[copied]]), np.append(y, y[copied])),
                "made": (
                    np.vstack([x, features(more.frame, data.contract)]),
                    np.append(y, more.frame["fails"].to_numpy()),
                ),
            }
            for way, (inputs, labels) in sets.items():
                right = classifier(model).fit(inputs, labels).predict(x_test) == truth
                got.setdefault(f"gap_{model}_{way}", []).append(right[rare].mean())
                got.setdefault(f"rest_{model}_{way}", []).append(right[~rare].mean())
    result: dict[str, Any] = {key: float(np.mean(each)) for key, each in got.items()}
    for model in models:
        for way in WAYS[1:]:
            for part in ("gap", "rest"):
                each = np.subtract(got[f"{part}_{model}_{way}"], got[f"{part}_{model}_nothing"])
                result[f"{part}_{model}_{way}_gain"] = float(each.mean())
                result[f"{part}_{model}_{way}_gain_sd"] = float(each.std(ddof=1))
        each = np.subtract(got[f"gap_{model}_made"], got[f"gap_{model}_copies"])
        result[f"gap_{model}_made_over_copies"] = float(each.mean())
        result[f"gap_{model}_made_over_copies_sd"] = float(each.std(ddof=1))
    return {
        **result,
        "gap_seeds": seeds,
        "gap_measured": measured / (len(models) * seeds),
        "gap_rows_made": float(np.mean(made_rows)),
    }


def impute_once(
    frame: pl.DataFrame,
    contract: Contract,
    masks: dict[str, NDArray[np.bool_]],
    config: ImputeConfig,
) -> dict[str, tuple[float, float, float, float]]:
    """Return by column coverage, width against the baseline's, error, and the baseline's error.

    Width is that of the interval or the number of values of the set; error the mean distance or the
    share of wrong words.
    """
    dirty = frame.with_columns(
        pl.when(pl.Series(mask)).then(None).otherwise(pl.col(name)).alias(name)
        for name, mask in masks.items()
    )
    result = {}
    for name, found in estimates(dirty, contract, config).items():
        mine = np.flatnonzero(masks[name][found.rows])
        truth = frame[name].gather(found.rows[mine])
        guess = pl.Series([found.values[i] for i in mine], dtype=pl.String)
        if contract.columns[name].is_number:
            low, high = found.low[mine], found.high[mine]
            true, near = (s.cast(pl.Float64).to_numpy() for s in (truth, guess))
            known = dirty[name].drop_nulls().cast(pl.Float64).to_numpy()
            edge = np.quantile(np.abs(known - np.median(known)), config.coverage)
            wide = np.where(np.isfinite(high - low), high - low, np.ptp(known))
            result[name] = (
                float(((low <= true) & (true <= high)).mean()),
                float(wide.mean() / max(2 * edge, 1e-12)),
                float(np.abs(near - true).mean()),
                float(np.abs(np.median(known) - true).mean()),
            )
        else:
            counts = dirty[name].drop_nulls().alias("t").value_counts(sort=True)
            shares = counts["count"].cum_sum() / counts["count"].sum()
            needed = int((shares < config.coverage).sum()) + 1
            words = [found.options[i] for i in mine]
            result[name] = (
                float(np.mean([one in each for one, each in zip(truth, words, strict=True)])),
                float(np.mean([len(each) for each in words]) / needed),
                float((truth != guess).mean()),
                float((truth != counts["t"][0]).mean()),
            )
    return result


def impute_part(seeds: int, sizes: Sequence[int], folder: Path | None) -> dict[str, Any]:
    """Return coverage, width and error by table, mechanism and column, over seeds."""
    cells: dict[str, list[tuple[float, float, float, float]]] = {}

    def add(key: str, got: dict[str, tuple[float, float, float, float]]) -> None:
        for column, four in got.items():
            cells.setdefault(f"{key}, {column}", []).append(four)

    mechanisms: tuple[Mechanism, ...] = ("mcar", "mar", "mnar")
    for seed in range(seeds):
        rng = np.random.default_rng((seed, 1))
        for rows in sizes:
            for uneven in (False, True):
                frame, contract = to_fill(rows, seed, uneven)
                for how in mechanisms:
                    name = f"{'uneven' if uneven else 'even'} {rows}, {how}"
                    masks = {c: masked(frame, c, how, rng, "age") for c in ("income", "kind")}
                    add(name, impute_once(frame, contract, masks, ImputeConfig()))
                    if uneven and how == "mar":
                        plain = ImputeConfig(weighted=False)
                        add(f"{name} unweighted", impute_once(frame, contract, masks, plain))
        for name, (frame, contract, on) in (real_tables(folder) if folder else {}).items():
            for how in mechanisms[:2]:
                masks = {c: masked(frame, c, how, rng, other) for c, other in on.items()}
                add(f"{name}, {how}", impute_once(frame, contract, masks, ImputeConfig()))
    figures = {}
    for key, each in cells.items():
        many = np.array(each)
        figures[key] = {
            "coverage": float(many[:, 0].mean()),
            "coverage_sd": float(many[:, 0].std(ddof=1)) if len(many) > 1 else 0.0,
            "width": float(many[:, 1].mean()),
            "error": float((many[:, 2] / np.maximum(many[:, 3], 1e-12)).mean()),
        }
    return {"impute": figures, "impute_seeds": seeds}


def summary(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the least coverage by mechanism, tables and sizes together."""
    made = {}
    for how in ("mcar", "mar", "mnar"):
        mine = [one for key, one in figures.items() if f", {how}," in key]
        if mine:
            made[f"impute_{how}_coverage"] = float(np.mean([one["coverage"] for one in mine]))
            made[f"impute_{how}_least_coverage"] = min(one["coverage"] for one in mine)
            made[f"impute_{how}_error"] = float(np.mean([one["error"] for one in mine]))
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("clean-slices", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with beers/ and hospital/")
    made.add_argument("--part", choices=("all", *PARTS), default="all", help="what is measured")
    args = made.parse_args(argv)
    root = os.environ.get("PENSTOCK_DATA")
    folder = args.data or (Path(root) / "cleaning" if root and not args.smoke else None)
    result: dict[str, Any] = {}
    with stopwatch() as took:
        for part in PARTS if args.part == "all" else (args.part,):
            result |= measured(part, folder, args.seed, small=args.smoke)
    result |= {"seconds": took.wall, "cpu_seconds": took.cpu}
    show(result)
    emit(result, args)


def measured(part: str, folder: Path | None, seed: int, *, small: bool) -> dict[str, Any]:
    """Return the keys of one part."""
    if part == "slices":
        return {
            **null_part(*((2, 200) if small else (200, 1_000))),
            **many_rows_part(20_000 if small else 1_000_000, seed),
            **search_part(*((1, 3_000) if small else (30, 6_000))),
        }
    if part == "gaps":
        return gap_part(*((2, 900, MODELS[2:]) if small else (10, 2_400, MODELS)))
    result = impute_part(*((1, (150,)) if small else (10, (200, 600, 3_000))), folder)
    return {**result, **summary(result["impute"])}


def show(result: dict[str, Any]) -> None:
    """Print the tables for people."""
    if "false_alarms" in result:
        table(
            f"tables with any false alarm, {result['null_seeds']} seeds",
            ("report and score", "share"),
            list(result["false_alarms"].items()),
        )
    gap_rows = [
        (m, *(result[f"gap_{m}_{w}"] for w in WAYS), result[f"gap_{m}_made_gain"],
         result[f"gap_{m}_made_gain_sd"], result[f"rest_{m}_made_gain"])
        for m in MODELS
        if f"gap_{m}_made" in result
    ]  # fmt: skip
    if gap_rows:
        table(
            f"accuracy in the gap slice, {result['gap_seeds']} seeds",
            ("model", *WAYS, "gain of made rows", "sd", "elsewhere"),
            gap_rows,
        )
    if "impute" in result:
        table(
            f"masked cells, nominal .90, {result['impute_seeds']} seeds",
            ("table, mechanism, column", "coverage", "sd", "width / baseline", "error / baseline"),
            [(key, *one.values()) for key, one in result["impute"].items()],
        )


if __name__ == "__main__":
    run_program("clean-slices", main)
