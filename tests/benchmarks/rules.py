"""Rules: a small rule set mined from the fraud trees, against a decision tree of the same size.

For each seed a bank is simulated and the shipped tree head is trained on it. Its thresholds of
review and block are those the API uses (1 % and .1 % of the legitimate payments), fitted on the
days between training and test. Rules and tree learn its decisions from the payments of these days
and the training window, never from labels; both are judged on the payments of the test week. F1 is
that of payments reviewed or blocked. The tree has as many leaves as there may be rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forest import Forest, read_model
from tasks.explain.rules.measure import f1_of, measure
from tasks.explain.rules.mine import MineConfig, mine
from tasks.explain.rules.teacher import Teacher
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.thresholds import fpr_threshold
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.training import training_rows
from tests.benchmarks._compared import differences, mean_interval
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._model import BANK, simulated

REVIEW_RATE, BLOCK_RATE = 0.01, 0.001


class Champion(NamedTuple):
    """A trained head, as rules see it."""

    names: tuple[str, ...]
    rows: NDArray[np.float32]
    teacher: Teacher
    test_rows: NDArray[np.float32]
    test: Teacher
    digest: str
    importance: NDArray[np.float64]


def champion(seed: int, *, smoke: bool) -> Champion:
    """Train the head of a bank; return what it says of the days before the test, and of those."""
    size = {"cards": 300, "terminals": 600} if smoke else {}
    config = find_config("demo")
    _, tx = simulated(config, replace(BANK, seed=seed, **size))
    features = build_features(tx, config)
    fold = make_plan(tx, config).test[0]
    known, between = training_rows(tx, fold), fold.delay_rows(tx)
    test = np.flatnonzero((tx.time >= fold.test_start) & (tx.time < fold.test_end))
    trees = TreeConfig(rounds=20, seeds=1) if smoke else TreeConfig()
    head = fit_trees(features.values[known], tx.label[known], trees)
    thresholds = [
        fpr_threshold(head.logit(features.values[between]), tx.label[between], rate)
        for rate in (REVIEW_RATE, BLOCK_RATE)
    ]
    texts = head.scorer.to_text()
    forest = Forest([read_model(text)[0] for text in texts], n_features=len(features.names))
    before = features.values[np.concatenate([known, between])]
    after = features.values[test]
    return Champion(
        tuple(features.names),
        before,
        Teacher.from_scores(head.logit(before), *thresholds),
        after,
        Teacher.from_scores(head.logit(after), *thresholds),
        hashlib.sha256("".join(texts).encode()).hexdigest(),
        np.abs(forest.contributions(before[:: max(1, len(before) // 2_000)]).mean(axis=0)).mean(
            axis=0
        ),
    )


def tree_f1(given: Champion, leaves: int) -> float:
    """Return F1 of one decision tree on the decisions."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    tree.fit(given.rows, given.teacher.decisions > 0)
    return f1_of(tree.predict(given.test_rows), given.test.decisions > 0)


def compare(seed: int, args: Any) -> dict[str, float]:
    """Mine and measure the rules of one bank."""
    given = champion(seed, smoke=args.smoke)
    with stopwatch() as timing:
        rules = mine(
            given.rows,
            given.names,
            given.teacher,
            MineConfig(max_rules=args.rules),
            importance=given.importance if args.shap else None,
            model_digest=given.digest,
        )
    found = measure(rules, given.test_rows, given.test.decisions)
    return {
        "seed": seed,
        "flagged": int((given.test.decisions > 0).sum()),
        "f1_block_review": found.f1,
        "f1_block": found.f1_block,
        "tree_f1": tree_f1(given, args.rules),
        "fidelity": found.fidelity.value,
        "coverage": found.coverage.value,
        "precision": found.precision.value,
        "n_rules": found.n_rules,
        "n_conditions": sum(len(rule.conditions) for rule in rules.rules),
        "conflicts": len(found.conflicts),
        "gaps": len(found.gaps),
        "mine_s": timing.cpu,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("rules", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    made.add_argument("--rules", type=int, default=30, help="most rules, and leaves of the tree")
    made.add_argument(
        "--shap", action="store_true", help="prefer features of large mean absolute SHAP values"
    )
    args = made.parse_args(argv)
    rows = []
    for seed in range(args.seed, args.seed + (args.seeds or (1 if args.smoke else 10))):
        rows.append(compare(seed, args))
        if not args.json:
            print(f"bank {seed}: {rows[-1]}", flush=True)
    keys = [key for key in rows[0] if key != "seed"]
    # A week without a blocked payment has no F1 of blocking.
    figures: dict[str, Any] = {key: float(np.nanmean([row[key] for row in rows])) for key in keys}
    for key in ("f1_block_review", "f1_block", "tree_f1"):
        figures[f"{key}_interval"] = mean_interval([row[key] for row in rows])[1:]
    figures["f1_block_review_sd"] = float(np.std([row["f1_block_review"] for row in rows]))
    figures |= differences(rows, {"gain": ("f1_block_review", "tree_f1")})
    shown = ("seed", "f1_block_review", "f1_block", "tree_f1", "fidelity", "n_rules")
    table("rules", shown, [[row[key] for key in shown] for row in rows])
    emit(figures | {"seeds": len(rows), "rows": rows}, args)


if __name__ == "__main__":
    run_program("rules", main)
