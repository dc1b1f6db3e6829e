"""Rules: a scorecard of few graded rules for the fraud trees, beside trees, FIGS and plain rules.

For each seed a bank is simulated and the shipped tree head is trained on it. Its thresholds of
review and block are those the API uses (1 % and .1 % of the legitimate payments), fitted on the
days between training and test. All contenders learn its decisions from the payments of these days
and the training window, never from labels; all are judged on the payments of the test week. F1 is
that of payments reviewed or blocked. A rule is one set of conditions with one effect, and each
cutoff of a scorecard counts as one. The tree has as many leaves, FIGS (Tan et al. 2022, by imodels)
as many splits, as there may be rules; FIGS has its own cutoff, by F1 on the same payments.

The keys ``defects_`` are the same on inspected parts: made-up surfaces of one line for each seed,
some damaged, told by readable measures (`_inspected_parts`). The same kind of head learns from a
third of the parts which are damaged; rules learn its decisions on the second third and are judged
on the last one. Review begins where 5 % of the sound parts lie above, reject where 1 % do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forest import Forest, read_model
from tasks.explain.rules.fit_scorecard import ScorecardConfig, fit_scorecard
from tasks.explain.rules.measure import f1_of, measure
from tasks.explain.rules.measure_scorecard import measure_scorecard
from tasks.explain.rules.mine import MineConfig, mine
from tasks.explain.rules.scorecard import Scorecard, run_scorecard
from tasks.explain.rules.teacher import Teacher
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.thresholds import fpr_threshold
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.training import training_rows
from tests.benchmarks._compared import differences, mean_interval
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._inspected_parts import NAMES, Parts, inspected
from tests.benchmarks._model import BANK, simulated

REVIEW_RATE, BLOCK_RATE = 0.01, 0.001
CURVE = (10, 20, 60)
FIGS_ROWS = 8_000


class Champion(NamedTuple):
    """A trained head, as rules see it."""

    names: tuple[str, ...]
    rows: NDArray[np.float32]
    teacher: Teacher
    test_rows: NDArray[np.float32]
    test: Teacher
    digest: str
    importance: NDArray[np.float64]
    label: Callable[[NDArray[np.float32]], Teacher]
    parts: Sequence[Sequence[int]] | None = None


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

    def label(rows: NDArray[np.float32]) -> Teacher:
        return Teacher.from_scores(head.logit(rows), *thresholds)

    before = features.values[np.concatenate([known, between])]
    after = features.values[test]
    return Champion(
        tuple(features.names),
        before,
        label(before),
        after,
        label(after),
        hashlib.sha256("".join(texts).encode()).hexdigest(),
        np.abs(forest.contributions(before[:: max(1, len(before) // 2_000)]).mean(axis=0)).mean(
            axis=0
        ),
        label,
    )


def inspector(seed: int, *, smoke: bool) -> Champion:
    """Train a head on inspected parts; return what it says of others, and of the last ones."""
    count = 400 if smoke else 2_000
    parts = inspected(3 * count, seed)
    trained, seen, last = (
        Parts(parts.rows[start : start + count], parts.damaged[start : start + count])
        for start in (0, count, 2 * count)
    )
    head = fit_trees(trained.rows, trained.damaged, TreeConfig(rounds=60, seeds=2))
    scores = head.logit(seen.rows)
    thresholds = [fpr_threshold(scores, seen.damaged, rate) for rate in (0.05, 0.01)]

    def label(rows: NDArray[np.float32]) -> Teacher:
        return Teacher.from_scores(head.logit(rows), *thresholds)

    texts = head.scorer.to_text()
    forest = Forest([read_model(text)[0] for text in texts], n_features=len(NAMES))
    return Champion(
        NAMES,
        seen.rows,
        label(seen.rows),
        last.rows,
        label(last.rows),
        hashlib.sha256("".join(texts).encode()).hexdigest(),
        np.abs(forest.contributions(seen.rows).mean(axis=0)).mean(axis=0),
        label,
        # Of the whole image, and of its spots.
        parts=[range(5), range(5, len(NAMES))],
    )


def tree_f1(given: Champion, leaves: int) -> float:
    """Return F1 of one decision tree on the decisions."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    tree.fit(given.rows, given.teacher.decisions > 0)
    return f1_of(tree.predict(given.test_rows), given.test.decisions > 0)


def figs_f1(given: Champion, splits: int) -> float:
    """Return F1 of a sum of small trees (FIGS) on the decisions.

    It learns from flagged payments and as many others as bring them to `FIGS_ROWS`, weighted so
    that they stand for all: it grows every tree anew for every split.
    """
    from imodels import FIGSRegressor

    wanted = given.teacher.decisions > 0
    others = np.flatnonzero(~wanted)
    drawn = np.random.default_rng(0).choice(others, min(len(others), FIGS_ROWS), replace=False)
    taken = np.concatenate([np.flatnonzero(wanted), drawn])
    weights = np.where(wanted[taken], 1.0, len(others) / len(drawn))
    model = FIGSRegressor(max_rules=splits, random_state=0)
    model.fit(given.rows[taken], wanted[taken].astype(np.float64), sample_weight=weights)
    scores = model.predict(given.rows)
    levels = np.unique(scores)[-2_000:]
    best = max(levels, key=lambda level: f1_of(scores >= level, wanted))
    return f1_of(model.predict(given.test_rows) >= best, given.test.decisions > 0)


def card_of(given: Champion, most: int, *, smoke: bool) -> Scorecard:
    """Return the scorecard of a head, of at most so many rules and cutoffs."""
    size: dict[str, Any] = {"steps": 200, "grow_steps": 40, "made_rows": 2_000} if smoke else {}
    return fit_scorecard(
        given.rows,
        given.names,
        given.teacher,
        ScorecardConfig(max_rules=most, **size),
        label=given.label,
        parts=given.parts,
        model_digest=given.digest,
    )


def compare(seed: int, args: Any) -> dict[str, float]:
    """Fit and measure the rules of one bank and of one line of parts."""
    bank = judged(champion(seed, smoke=args.smoke), args)
    line = judged(inspector(seed, smoke=args.smoke), args)
    return {"seed": seed, **bank, **{f"defects_{key}": value for key, value in line.items()}}


def judged(given: Champion, args: Any) -> dict[str, float]:
    """Fit and measure the rules of one head."""
    with stopwatch() as timing:
        card = card_of(given, args.rules, smoke=args.smoke)
    with stopwatch() as mining:
        rules = mine(
            given.rows,
            given.names,
            given.teacher,
            MineConfig(max_rules=args.rules),
            importance=given.importance if args.shap else None,
            model_digest=given.digest,
        )
    found = measure_scorecard(card, given.test_rows, given.test.decisions)
    plain = measure(rules, given.test_rows, given.test.decisions)
    curve = {
        f"f1_at_{most}": f1_of(
            run_scorecard(card_of(given, most, smoke=args.smoke), given.test_rows).decisions > 0,
            given.test.decisions > 0,
        )
        for most in (CURVE if args.curve else ())
    }
    return {
        "flagged": int((given.test.decisions > 0).sum()),
        "f1_block_review": found.f1,
        "f1_block": found.f1_block,
        "tree_f1": tree_f1(given, args.rules),
        "figs_f1": figs_f1(given, args.rules),
        "plain_f1": plain.f1,
        "plain_f1_block": plain.f1_block,
        "fidelity": found.fidelity.value,
        "coverage": found.coverage.value,
        "precision": found.precision.value,
        "n_rules": found.n_rules,
        "n_conditions": sum(len(rule.conditions) for rule in card.rules),
        "gaps": len(found.gaps),
        "plain_n_rules": plain.n_rules,
        "plain_conflicts": len(plain.conflicts),
        "plain_nested": plain.nested,
        "plain_gaps": len(plain.gaps),
        "fit_s": timing.cpu,
        "mine_s": mining.cpu,
        **curve,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("rules", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    made.add_argument("--rules", type=int, default=30, help="most rules, and leaves of the tree")
    made.add_argument("--curve", action="store_true", help="F1 of 10, 20 and 60 rules as well")
    made.add_argument(
        "--shap",
        action="store_true",
        help="plain rules prefer features of large mean absolute SHAP values",
    )
    args = made.parse_args(argv)
    rows = []
    for seed in range(args.seed, args.seed + (args.seeds or (1 if args.smoke else 10))):
        rows.append(compare(seed, args))
        print(f"bank {seed}: {rows[-1]}", flush=True)
    keys = [key for key in rows[0] if key != "seed"]
    # A week without a blocked payment has no F1 of blocking.
    figures: dict[str, Any] = {key: float(np.nanmean([row[key] for row in rows])) for key in keys}
    for key in [one for one in keys if "f1" in one]:
        figures[f"{key}_interval"] = mean_interval([row[key] for row in rows])[1:]
    figures["f1_block_review_sd"] = float(np.std([row["f1_block_review"] for row in rows]))
    figures |= differences(
        rows,
        {
            "gain": ("f1_block_review", "tree_f1"),
            "gain_figs": ("f1_block_review", "figs_f1"),
            "gain_plain": ("f1_block_review", "plain_f1"),
            "defects_gain": ("defects_f1_block_review", "defects_tree_f1"),
        },
    )
    shown = (
        "seed",
        "f1_block_review",
        "f1_block",
        "tree_f1",
        "figs_f1",
        "plain_f1",
        "n_rules",
    )
    for prefix in ("", "defects_"):
        keys = [key if key == "seed" else prefix + key for key in shown]
        table(f"{prefix}rules", shown, [[row[key] for key in keys] for row in rows])
    emit(figures | {"seeds": len(rows), "rows": rows}, args)


if __name__ == "__main__":
    run_program("rules", main)
