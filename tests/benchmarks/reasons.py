"""Reasons: what they cost an answer of the API, whether they last, and whether ties are declared.

Stability: for each bank the shipped tree head is trained, and its background of training rows drawn
eleven times. The reasons of the payments that it reviews or blocks in the test week are compared
between all pairs of backgrounds: the groups of the (at most four) reasons, and the order of
neighbours. A flip that was declared a tie is honest, one that was not misleads. The same is done
between heads trained with other seeds (``trained_``): a reason's error holds the spread of the
seeds, too. Latency: one server under one load; the rules decide which answers are explained, so
reasons go on and off in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forest import Forest, read_model
from tasks.explain.background import Background
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import ReasonRanker
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.evaluation.thresholds import fpr_threshold
from tasks.fraud.features import build_features
from tasks.fraud.heads import TreeConfig, fit_trees
from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.online.explanation import HeadExplanation
from tasks.fraud.online.head import FastHead
from tasks.fraud.online.head_parts import ForestPart
from tasks.fraud.training import TrainingConfig, training_rows
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._model import BANK, simulated
from tests.benchmarks.api_load import Session, serving

DRAWS = 11
TRAININGS = 3
MOST_ROWS = 200
REVIEW_RATE = 0.01
FLOOR, SHARE = 0.1, 0.05
"""Least contribution of a reason, see ``tasks.explain.reasons.rank_reasons``."""

Rows = NDArray[np.float32]


class Bank(NamedTuple):
    """A head trained several times with other seeds, and the payments that the first one flags."""

    names: tuple[str, ...]
    groups: FeatureGroups
    forests: tuple[Forest, ...]
    training: Rows
    flagged: Rows


def trained(seed: int, *, smoke: bool) -> Bank:
    """Train the shipped trees on a small bank; find what they review or block in the test week."""
    config = find_config("demo")
    size = {"cards": 100, "terminals": 200} if smoke else {"cards": 400, "terminals": 800}
    _, tx = simulated(config, replace(BANK, seed=seed, **size))
    features = build_features(tx, config)
    fold = make_plan(tx, config).test[0]
    known, between = training_rows(tx, fold), fold.delay_rows(tx)
    test = np.flatnonzero((tx.time >= fold.test_start) & (tx.time < fold.test_end))
    trees = TreeConfig(rounds=20, seeds=2) if smoke else TreeConfig()
    heads = [
        fit_trees(features.values[known], tx.label[known], replace(trees, seed=first))
        for first in range(0, TRAININGS * trees.seeds, trees.seeds)
    ]
    head = heads[0]
    least = fpr_threshold(head.logit(features.values[between]), tx.label[between], REVIEW_RATE)
    after = features.values[test]
    flagged = after[head.logit(after) >= least]
    names = tuple(features.names)
    forests = [
        Forest([read_model(text)[0] for text in one.scorer.to_text()], len(names)) for one in heads
    ]
    return Bank(
        names,
        FeatureGroups.of(names, [e.column for e in config.entities]),
        tuple(forests),
        features.values[known],
        np.ascontiguousarray(flagged[:: -(-len(flagged) // MOST_ROWS) or 1]),
    )


class Told(NamedTuple):
    """The explanations of the flagged rows against one background."""

    explanations: list[HeadExplanation]
    order: list[dict[str, float]]
    load_s: float
    row_us: float


def told(bank: Bank, rows: int, draw: int, training: int = 0) -> Told:
    """Explain the flagged rows by one training's head against one drawn background."""
    rng = np.random.default_rng([draw, rows])
    chosen = np.sort(rng.choice(len(bank.training), rows, replace=False))
    with stopwatch() as loading:
        part = ForestPart(bank.forests[training], Background(bank.names, bank.training[chosen]))
        head = FastHead("tabular", bank.names, part, Calibration(), None, ReasonRanker(bank.groups))
        head.reasons(bank.flagged[0])
    with stopwatch() as timing:
        for row in bank.flagged:
            head.reasons(row)
    made = [head.explain(row) for row in bank.flagged]
    order = [{g.group: g.contribution for g in one.groups} for one in made]
    return Told(made, order, loading.cpu, timing.cpu / len(made) * 1e6)


def neighbours(one: HeadExplanation) -> list[tuple[str, str, bool]]:
    """Return each reason, the next strongest that could be one, and whether they were a tie."""
    least = max(FLOOR, SHARE * one.groups[0].contribution)
    found = []
    for place in range(min(len(one.reasons), len(one.groups) - 1)):
        group, after = one.groups[place], one.groups[place + 1]
        if after.contribution >= least:
            found.append((group.group, after.group, one.reasons[place].tie))
    return found


def agreement(several: Sequence[Told]) -> dict[str, float]:
    """Compare reasons between all ordered pairs."""
    overlap, exact, flips, honest, pairs, ties = [], [], 0, 0, 0, 0
    for one, other in permutations(several, 2):
        for ours, theirs, values in zip(
            one.explanations, other.explanations, other.order, strict=True
        ):
            mine = {r.group for r in ours.reasons}
            yours = {r.group for r in theirs.reasons}
            most = max(len(mine), len(yours))
            overlap.append(len(mine & yours) / most if most else 1.0)
            exact.append(mine == yours)
            for stronger, weaker, tie in neighbours(ours):
                pairs += 1
                ties += tie
                flipped = values[stronger] < values[weaker]
                flips += flipped
                honest += flipped and tie
    return {
        "stability_top4": float(np.mean(overlap)),
        "stability_top4_exact": float(np.mean(exact)),
        "honest_flips": honest,
        "flips": flips,
        "ties": ties,
        "neighbours": pairs,
    }


def stability(bank: Bank, rows: int) -> dict[str, float]:
    """Compare the reasons between drawn backgrounds, and between trainings."""
    drawn = [told(bank, rows, draw) for draw in range(DRAWS)]
    trained = [drawn[0], *(told(bank, rows, 0, other) for other in range(1, TRAININGS))]
    errors = [
        g.error for t in drawn for one in t.explanations for g in one.groups[: len(one.reasons)]
    ]
    return {
        **agreement(drawn),
        **{f"trained_{key}": value for key, value in agreement(trained).items()},
        "reason_error": float(np.median(errors)) if errors else float("nan"),
        "flagged": len(bank.flagged),
        "load_s": float(np.mean([t.load_s for t in drawn[1:]])),
        "reasons_row_us": min(t.row_us for t in drawn),
    }


def switch(session: Session, *, on: bool) -> None:
    """Have every answer explained, or none: rules decide what is reviewed, and reviews get reasons.

    Raises:
        RuntimeError: The server did not take the rules.
    """
    at = 0.0 if on else 1.0
    rules = {"version": "on" if on else "off", "review_at": at, "block_at": 1.0}
    answer = session.api.call("PUT", "/v1/rules", rules)
    if answer.status != 200:
        raise RuntimeError(f"the rules were not taken: {answer.status} {answer.body[:200]!r}")


def latency(args: argparse.Namespace) -> dict[str, Any]:
    """Measure answers with and without reasons in turn, on one server."""
    rounds = 1 if args.smoke else args.rounds
    spans: dict[bool, list[Any]] = {True: [], False: []}
    cpu = {True: 0.0, False: 0.0}
    with serving(args, graph=False, reasons_from="review") as session:
        for on in (True, False):
            switch(session, on=on)
            session.warm()
        for turn in range(rounds):
            for on in (True, False) if turn % 2 else (False, True):
                switch(session, on=on)
                before = session.api.cpu_seconds()
                spans[on].append(session.run(args.rate, args.seconds))
                cpu[on] += session.api.cpu_seconds() - before
    sent = {on: sum(r.sent for r in spans[on]) for on in spans}
    result: dict[str, Any] = {
        "rate": args.rate,
        "rounds": rounds,
        "errors": sum(r.errors for runs in spans.values() for r in runs),
        "with_reasons_on": float(np.mean([r.with_reasons for r in spans[True]])),
        "with_reasons_off": float(np.mean([r.with_reasons for r in spans[False]])),
        "api_added_cpu_us": 1e6 * (cpu[True] / sent[True] - cpu[False] / sent[False]),
    }
    for key in ("p50_ms", "p99_ms"):
        on, off = ([getattr(r, key) for r in spans[which]] for which in (True, False))
        differences = [a - b for a, b in zip(on, off, strict=True)]
        name = key.removesuffix("_ms")
        result |= {
            f"{name}_on_ms": float(np.mean(on)),
            f"{name}_off_ms": float(np.mean(off)),
            f"api_added_ms_{name}": float(np.mean(differences)),
            f"api_added_ms_{name}_sd": float(np.std(differences)),
        }
    return result


def over_banks(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over banks; of neighbours and flips, shares of all of them."""
    figures: dict[str, Any] = {}
    for kind in ("", "trained_"):
        flips, ties, honest, pairs = (
            sum(row[kind + key] for row in rows)
            for key in ("flips", "ties", "honest_flips", "neighbours")
        )
        figures |= {
            f"{kind}tie_honesty": honest / flips if flips else float("nan"),
            f"{kind}ties_declared": ties / max(pairs, 1),
            f"{kind}flips": flips / max(pairs, 1),
        }
    for key in ("reason_error", "flagged", "load_s", "reasons_row_us"):
        figures[key] = float(np.mean([row[key] for row in rows]))
    for key in ("stability_top4", "stability_top4_exact", "trained_stability_top4"):
        values = [row[key] for row in rows]
        figures |= {key: float(np.mean(values)), f"{key}_worst": min(values)}
        if len(rows) > 1:
            figures[f"{key}_interval"] = mean_interval(values)[1:]
            figures[f"{key}_sd"] = float(np.std(values, ddof=1))
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("reasons", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=0, help="banks (default 10)")
    made.add_argument("--background", type=int, default=0, help="rows (default: what training has)")
    made.add_argument("--rate", type=float, default=300.0, help="requests a second")
    made.add_argument("--seconds", type=float, default=5.0, help="length of each turn")
    made.add_argument("--rounds", type=int, default=5, help="turns with reasons, and without")
    made.add_argument("--models", type=Path, help="folder of the benchmark's models")
    made.add_argument("--part", choices=("all", "stability", "latency"), default="all")
    args = made.parse_args(argv)
    if args.smoke:
        args.rate, args.seconds = 100.0, 1.5
    figures: dict[str, Any] = {}
    if args.part != "latency":
        size = args.background or TrainingConfig().background_rows
        rows = []
        for seed in range(args.seed, args.seed + (args.seeds or (1 if args.smoke else 10))):
            rows.append({"seed": seed, **stability(trained(seed, smoke=args.smoke), size)})
            if not args.json:
                print(f"bank {seed}: {rows[-1]}", flush=True)
        figures |= over_banks(rows)
        figures |= {"background_rows": size, "draws": DRAWS, "seeds": len(rows), "rows": rows}
    if args.part != "stability":
        figures |= latency(args)
    shown = [(key, value) for key, value in figures.items() if isinstance(value, float)]
    table("reasons", ("figure", "value"), shown, note="mean over banks; CPU beside wall times")
    emit(figures, args)


if __name__ == "__main__":
    run_program("reasons", main)
