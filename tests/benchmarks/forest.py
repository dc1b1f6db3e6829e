"""Forest: the shipped trees scored and explained by the kernel, ONNX Runtime and LightGBM.

The trees are those of the shipped head (5 models of 150 trees of 8 leaves), grown on simulated card
payments. Every way runs on the same rows, in this process, on one thread: many rows in batches of
1,000, as a stream hands them on, and one row at a time, as a request does. A figure is the least
CPU time of the repeats per row, the wall time of that repeat beside it. Reading the models and
building the tables is apart (``load_s``, compiled code at hand or not).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kernels.forest import Forest, read_model
from tasks.explain.background import Background
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import ReasonRanker
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.features import build_features
from tasks.fraud.heads import Head, TreeConfig, fit_trees
from tasks.fraud.ingest.checks import check
from tasks.fraud.online.head import FastHead
from tasks.fraud.online.head_parts import ForestPart
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tests.benchmarks._harness import Timing, emit, parser, run_program, stopwatch, table

CONFIG = Path(__file__).resolve().parents[2] / "tasks" / "fraud" / "datasets" / "handbook.toml"
BATCH = 1_000
BACKGROUND = 256
Rows = NDArray[np.float32]


def grown(cards: int, days: int, trees: TreeConfig, seed: int) -> tuple[Head, Rows, Any]:
    """Return a fitted head, the newest rows first to last, and the feature groups."""
    config = DatasetConfig.from_toml(CONFIG)
    bank = CardsConfig(cards=cards, terminals=2 * cards, days=days, seed=seed)
    payments = pa.Table.from_batches(list(simulate_cards(bank)), CARDS_SCHEMA)
    tx = check(payments, config, "simulated").transactions
    features = build_features(tx, config)
    head = fit_trees(features.values, tx.label, trees)
    groups = FeatureGroups.of(features.names, [e.column for e in config.entities])
    return head, np.ascontiguousarray(features.values[-200_000:]), (features.names, groups)


def in_batches(call: Callable[[Rows], object], x: Rows) -> Callable[[], None]:
    """Return a run over all rows of ``x``, a batch at a time."""

    def run() -> None:
        for start in range(0, len(x), BATCH):
            call(x[start : start + BATCH])

    return run


def one_by_one(call: Callable[[Rows], object], x: Rows) -> Callable[[], None]:
    """Return a run over the rows of ``x``, each alone [1, F] or [F] as the caller made them."""

    def run() -> None:
        for row in x:
            call(row)

    return run


def least(run: Callable[[], None], repeats: int) -> Timing:
    """Return the repeat that took the least CPU time, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        with stopwatch() as took:
            run()
        times.append(took)
    return min(times, key=lambda t: t.cpu)


def session(head: Head) -> Any:
    """Return the head's ONNX graph in ONNX Runtime, as bundles run it."""
    from tasks.fraud.bundle.heads import OnnxHead

    return OnnxHead("tabular", head.to_onnx())


def ways(
    head: Head, fast: FastHead, forest: Forest, x: Rows, n: int, few: int
) -> dict[str, tuple[Callable[[], None], int]]:
    """Return key -> what is timed and over how many rows."""
    onnx, boosters = session(head), head.scorer.boosters

    def lightgbm(rows: Rows) -> None:
        for booster in boosters:
            booster.predict(rows, raw_score=True, num_threads=1)

    def lightgbm_contributions(rows: Rows) -> None:
        for booster in boosters:
            booster.predict(rows, pred_contrib=True, num_threads=1)

    batches, single, tables = x[:n], x[:few], x[: few * 10]
    alone = single[:, None]  # rows [1, F]
    return {
        "score_us_per_row": (in_batches(forest.score, batches), n),
        "head_us_per_row": (in_batches(fast.score, batches), n),
        "ort_us_per_row": (in_batches(lambda r: onnx.score({"features": r}), tables), len(tables)),
        "lightgbm_us_per_row": (in_batches(lightgbm, tables), len(tables)),
        "contributions_us_per_row": (in_batches(forest.contributions, tables), len(tables)),
        "lightgbm_contrib_us_per_row": (in_batches(lightgbm_contributions, single), few),
        "single_row_us": (one_by_one(forest.score_row, single), few),
        "head_single_row_us": (one_by_one(fast.score_row, single), few),
        "ort_single_row_us": (one_by_one(lambda r: onnx.score({"features": r}), alone), few),
        "lightgbm_single_row_us": (one_by_one(lightgbm, alone[: few // 5]), few // 5),
        "single_row_contributions_us": (one_by_one(forest.explain_row, single), few),
        "single_row_reasons_us": (one_by_one(fast.reasons, single), few),
        "lightgbm_single_row_contrib_us": (
            one_by_one(lightgbm_contributions, alone[: few // 5]), few // 5,
        ),
    }  # fmt: skip


RATIOS = {
    "ort_ratio": ("ort_us_per_row", "score_us_per_row"),
    "lightgbm_ratio": ("lightgbm_us_per_row", "score_us_per_row"),
    "contrib_ratio": ("lightgbm_contrib_us_per_row", "contributions_us_per_row"),
    "ort_single_row_ratio": ("ort_single_row_us", "single_row_us"),
    "single_row_contrib_ratio": (
        "lightgbm_single_row_contrib_us",
        "single_row_contributions_us",
    ),
}


def differences(head: Head, forest: Forest, x: Rows) -> tuple[float, float]:
    """Return the largest differences to LightGBM of scores and of contributions."""
    boosters = head.scorer.boosters
    score = sum(b.predict(x, raw_score=True, num_threads=1) for b in boosters)
    each = np.stack([b.predict(x, pred_contrib=True, num_threads=1) for b in boosters])
    worst = np.abs(forest.score(x) - score).max()
    return float(worst), float(np.abs(forest.contributions(x) - each[..., :-1]).max())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("forest", __doc__.splitlines()[0])
    made.add_argument("--repeats", type=int, default=0, help="timed repeats (default 5)")
    args = made.parse_args(argv)
    if args.smoke:
        size, n, few, repeats = (80, 40, TreeConfig(rounds=10, seeds=2, bins=255)), 2_000, 100, 1
    else:
        size, n, few, repeats = (1_500, 60, TreeConfig()), 100_000, 2_000, 5
    head, x, (names, groups) = grown(*size, args.seed)

    with stopwatch() as loading:
        models = [read_model(text)[0] for text in head.scorer.to_text()]
        forest = Forest(models, len(names))
        tabulated = forest.tabulated
    score_diff, contrib_diff = differences(head, forest, x[:200])
    background = Background(names, x[:: max(1, len(x) // BACKGROUND)][:BACKGROUND].copy())
    with stopwatch() as preparing:
        part = ForestPart(forest, background)
    fast = FastHead("tabular", names, part, head.calibration, None, ReasonRanker(groups))

    figures: dict[str, float] = {}
    rows = []
    for key, (run, count) in ways(head, fast, forest, x, n, few).items():
        took = least(run, args.repeats or repeats)
        figures[key] = took.cpu / count * 1e6
        figures[key.replace("us", "wall_us", 1)] = took.wall / count * 1e6
        rows.append((key, count, figures[key], took.wall / count * 1e6))
    figures |= {name: figures[slow] / figures[quick] for name, (slow, quick) in RATIOS.items()}
    result = {
        **figures,
        "max_score_diff": score_diff,
        "max_contrib_diff": contrib_diff,
        "trees": forest.trees,
        "tabulated": tabulated,
        "features": len(names),
        "rows": n,
        "load_s": loading.cpu,
        "background_rows": len(background.values),
        "background_load_s": preparing.cpu,
    }
    table(
        f"forest: {forest.models} models, {forest.trees} trees, {len(names)} features, one thread",
        ("way", "rows", "CPU us / row", "wall us / row"),
        rows,
        note=f"largest difference to LightGBM: scores {score_diff:.1e}, "
        f"contributions {contrib_diff:.1e}",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("forest", main)
