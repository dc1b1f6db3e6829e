"""Exact interventional SHAP values of trees: the forest kernel and shap on the same rows.

Per seed, LightGBM models are grown on generated data of 74 features and explained against the same
background rows: a head of the shipped shape (5 models of 150 trees of 8 leaves) and, under keys
that begin with ``deep_``, one model of 100 trees of 31 leaves. Rates are rows per CPU second of
this process, which has one thread. The ways take turns and the best of five turns counts; a figure
is the mean over seeds with its standard deviation beside it (``_sd``), but differences are the
largest and ratios the smallest of all seeds. ``max_diff`` judges by a sum over all pairs of row and
background row in double precision, because shap computes this method in single precision
(``shap_diff``). LightGBM's own ``pred_contrib`` is what shap calls for path-dependent values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from kernels.forest import Forest, Tree, read_model
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks.forest import in_batches, one_by_one

FEATURES = 74
Rows = NDArray[np.float32]
Reals = NDArray[np.float64]


class Shape(NamedTuple):
    """Trees to grow."""

    prefix: str
    models: int
    rounds: int
    leaves: int


class Size(NamedTuple):
    """Rows of each part of a run, and its repeats."""

    training: int
    background: int
    rows: int
    short_rows: int
    shap_rows: int
    repeats: int


SHAPES = (Shape("", 5, 150, 8), Shape("deep_", 1, 100, 31))
SIZE = Size(10_000, 100, 5_000, 200, 10, 5)
SMALL_SHAPES = (Shape("", 2, 10, 8), Shape("deep_", 1, 5, 31))
SMALL = Size(2_000, 20, 200, 50, 5, 1)


def generated(n: int, seed: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Return rows [n, 74] of amounts, counts and plain numbers, and labels, one in ten true."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES))
    x[:, ::3] = np.exp(x[:, ::3])
    x[:, ::5] = rng.poisson(2.0, size=x[:, ::5].shape)
    score = x[:, 0] / 2 + x[:, 1] * x[:, 2] + 2 * np.sin(x[:, 4])
    score += x[:, 5:20] @ rng.normal(scale=0.3, size=15) + rng.normal(size=n)
    return x.astype(np.float32), score > np.quantile(score, 0.9)


def grown(shape: Shape, x: Rows, label: NDArray[np.bool_], seed: int) -> list[Any]:
    """Return fitted LightGBM boosters."""
    settings = {"objective": "binary", "num_leaves": shape.leaves, "verbosity": -1,
                "num_threads": 1, "feature_fraction": 0.5, "bagging_fraction": 0.8,
                "bagging_freq": 1}  # fmt: skip
    return [
        lightgbm.train(settings | {"seed": seed + k}, lightgbm.Dataset(x, label), shape.rounds)
        for k in range(shape.models)
    ]


def pair_by_pair(trees: Sequence[Tree], x: Rows, background: Rows) -> Reals:
    """Return interventional values [n, F] of a model on rows without missing values.

    Every leaf, row and background row by the closed form of its own game (see
    ``kernels.forest.backgrounds``); nothing is counted, tabulated or cut.
    """
    weight = np.array([[math.factorial(k) * math.factorial(max(n - 1 - k, 0)) / math.factorial(n)
                        for k in range(32)] for n in range(32)])  # fmt: skip
    out = np.zeros(x.shape)
    for tree in trees:
        own, other = (~(r[:, tree.feature] <= tree.threshold) for r in (x, background))
        for leaf, path in enumerate(paths_of(tree)):
            features = sorted({int(tree.feature[node]) for node, _ in path})
            mine = np.ones((len(x), 1, len(features)), np.bool_)
            theirs = np.ones((1, len(background), len(features)), np.bool_)
            for node, side in path:
                f = features.index(int(tree.feature[node]))
                mine[:, 0, f] &= own[:, node] == side
                theirs[0, :, f] &= other[:, node] == side
            counts = (mine | theirs).all(axis=2) * tree.value[leaf] / len(background)
            a, b = (mine & ~theirs).sum(axis=2), (theirs & ~mine).sum(axis=2)
            gain, loss = counts * weight[a + b, a - 1], counts * weight[a + b, a]
            values = np.where(mine & ~theirs, gain[..., None], 0.0)
            values -= np.where(theirs & ~mine, loss[..., None], 0.0)
            out[:, features] += values.sum(axis=1)
    return out


def paths_of(tree: Tree) -> list[list[tuple[int, bool]]]:
    """Return per leaf the nodes above it and the side taken there (True: right)."""
    found: list[list[tuple[int, bool]]] = [[] for _ in tree.value]
    waiting: list[tuple[int, list[tuple[int, bool]]]] = [(0 if len(tree.feature) else -1, [])]
    while waiting:
        child, path = waiting.pop()
        if child < 0:
            found[~child] = path
        else:
            waiting.append((int(tree.left[child]), [*path, (child, False)]))
            waiting.append((int(tree.right[child]), [*path, (child, True)]))
    return found


def shap_calls(boosters: Sequence[Any], background: Rows) -> dict[str, Callable[[Rows], Reals]]:
    """Return shap's explainers of all models, interventional and path-dependent.

    The second hands LightGBM models to LightGBM's own ``pred_contrib``.
    """
    import shap

    against = background.astype(np.float64)
    explainers = {
        "": [shap.TreeExplainer(b, data=against, feature_perturbation="interventional")
             for b in boosters],
        "path_": [shap.TreeExplainer(b) for b in boosters],
    }  # fmt: skip

    def call(kind: str) -> Callable[[Rows], Reals]:
        return lambda x: np.stack([e(x, check_additivity=False).values for e in explainers[kind]])

    return {kind: call(kind) for kind in explainers}


def in_turns(ways: Mapping[str, tuple[Callable[[], None], int]], repeats: int) -> dict[str, float]:
    """Return the least CPU seconds per row of each way; they take turns, so a busy machine is fair.

    Args:
        ways: Key -> what is timed and over how many rows.
        repeats: Turns, after one that warms up.
    """
    took = dict.fromkeys(ways, math.inf)
    for turn in range(repeats + 1):
        for key, (run, count) in ways.items():
            with stopwatch() as timing:
                run()
            if turn:
                took[key] = min(took[key], timing.cpu / count)
    return took


def measured(shape: Shape, size: Size, seed: int) -> dict[str, float]:
    """Return the figures of one seed."""
    x, label = generated(size.training + size.background + size.rows, seed)
    boosters = grown(shape, x[: size.training], label[: size.training], seed)
    background, rows = np.split(x[size.training :], [size.background])
    rows = np.ascontiguousarray(rows)
    models = [read_model(booster.model_to_string())[0] for booster in boosters]
    path = Forest(models, FEATURES)
    path.interventional(background[:2])  # compiles
    with stopwatch() as building:
        forest = path.interventional(background)
    few, short = rows[: size.shap_rows], rows[: size.short_rows]
    theirs = shap_calls(boosters, background)
    took = in_turns(
        {
            "": (in_batches(forest.contributions, rows), len(rows)),
            "shap": (in_batches(theirs[""], few), len(few)),
            "path": (in_batches(path.contributions, short), len(short)),
            "shap_path": (in_batches(theirs["path_"], short), len(short)),
            "row": (one_by_one(forest.explain_row, short), len(short)),
            "path_row": (one_by_one(path.explain_row, short), len(short)),
        },
        size.repeats,
    )
    exact = np.stack([pair_by_pair(model, few, background) for model in models])
    total = forest.base.sum() + forest.contributions(rows).sum(axis=(0, 2))
    raw = sum(b.predict(rows, raw_score=True, num_threads=1) for b in boosters)

    def gap(found: Reals, wanted: Reals) -> float:
        return float(np.abs(found - wanted).max())

    return {
        "rows_s": 1 / took[""],
        "shap_tree_rows_s": 1 / took["shap"],
        "ratio": took["shap"] / took[""],
        "max_diff": gap(forest.contributions(few), exact),
        "shap_diff": gap(forest.contributions(few), theirs[""](few)),
        "shap_max_diff": gap(theirs[""](few), exact),
        "additivity_max": gap(total, raw),
        "row_us": took["row"] * 1e6,
        "path_row_us": took["path_row"] * 1e6,
        "path_rows_s": 1 / took["path"],
        "shap_path_rows_s": 1 / took["shap_path"],
        "path_max_diff": gap(path.contributions(few), theirs["path_"](few)),
        "build_s": building.cpu,
        "pieces": float(forest.trees),
        "tabulated": float(forest.tabulated),
    }


def summed_up(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the worst difference, the least ratio, and else mean and deviation over seeds."""
    figures: dict[str, float] = {}
    for key in seeds[0]:
        values = [found[key] for found in seeds]
        if key.endswith(("diff", "_max")):
            figures[key] = max(values)
        elif key == "ratio":
            figures[key] = min(values)
        else:
            figures[key] = float(np.mean(values))
            figures[f"{key}_sd"] = float(np.std(values))
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("shap-trees", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="models grown anew (default 10)")
    args = made.parse_args(argv)
    shapes, size = (SMALL_SHAPES, SMALL) if args.smoke else (SHAPES, SIZE)
    seeds = args.seeds or (1 if args.smoke else 10)
    result: dict[str, Any] = {"features": FEATURES, "background_rows": size.background,
                              "seeds": seeds}  # fmt: skip
    for shape in shapes:
        figures = summed_up([measured(shape, size, args.seed + i) for i in range(seeds)])
        figures |= {"trees": shape.models * shape.rounds, "leaves": shape.leaves}
        table(
            f"{shape.models} x {shape.rounds} trees of {shape.leaves} leaves, "
            f"{size.background} background rows, {seeds} seeds, one thread",
            ("figure", "value"),
            list(figures.items()),
        )
        result |= {shape.prefix + key: value for key, value in figures.items()}
    emit(result, args)


if __name__ == "__main__":
    run_program("shap-trees", main)
