"""The fraud trees as a black box: values by players against the exact ones, beside shap's.

A bank is simulated and the tree head trained twice: on all features, then on those of largest mean
absolute SHAP value. The second head is explained on payments of its test week that it would send to
review. Ungrouped values are judged by exact interventional tree SHAP, grouped ones (window and kind
of evidence) by all coalitions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.forest import Forest, read_model
from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.groups import FeatureGroups
from tasks.explain.players import Players
from tasks.fraud.dataset import find_config
from tasks.fraud.evaluation.plan import make_plan
from tasks.fraud.features import build_features
from tasks.fraud.heads import Head, TreeConfig, fit_trees
from tasks.fraud.training import training_rows
from tests.benchmarks._harness import stopwatch
from tests.benchmarks._model import BANK, simulated

BACKGROUND = 50
REVIEW_SHARE = 0.01
Values = NDArray[np.float64]
Accuracy = Callable[[Values, Values], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A head on few features, and what it is asked to explain.

    Attributes:
        names: Its F features.
        forest: Its trees.
        background: Rows of training, drawn.
        rows: Payments of the test week above the threshold of review, drawn ``[n, F]``.
    """

    names: tuple[str, ...]
    forest: Forest
    background: Background
    rows: NDArray[np.float32]

    def score(self, rows: Any) -> Values:
        """Return mean log-odds ``[n]``."""
        return self.forest.score(rows) / self.forest.models


def made(seed: int, features: int, rows: int, *, smoke: bool) -> Case:
    """Train the heads of a bank."""
    size = {"cards": 300, "terminals": 600} if smoke else {}
    config = find_config("demo")
    _, tx = simulated(config, replace(BANK, seed=seed, **size))
    table = build_features(tx, config)
    fold = make_plan(tx, config).test[0]
    known = training_rows(tx, fold)
    test = np.flatnonzero((tx.time >= fold.test_start) & (tx.time < fold.test_end))
    trees = TreeConfig(rounds=20, seeds=1) if smoke else TreeConfig()

    def fitted(columns: Any) -> Forest:
        head: Head = fit_trees(table.values[np.ix_(known, columns)], tx.label[known], trees)
        models = [read_model(text)[0] for text in head.scorer.to_text()]
        return Forest(models, n_features=len(columns))

    everything = np.arange(len(table.names))
    some = table.values[known[:: max(1, len(known) // 2_000)]]
    weight = np.abs(fitted(everything).contributions(some).mean(axis=0)).mean(axis=0)
    chosen = np.sort(np.argsort(-weight, kind="stable")[:features])
    forest = fitted(chosen)
    names = tuple(table.names[place] for place in chosen)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(known, BACKGROUND, replace=False)
    scores = forest.score(table.values[np.ix_(test, chosen)])
    first = test[np.argsort(-scores, kind="stable")[: max(rows, int(REVIEW_SHARE * len(test)))]]
    alerts = rng.choice(first, rows, replace=False)
    background = Background(names, table.values[np.ix_(drawn, chosen)].copy())
    return Case(names, forest, background, table.values[np.ix_(alerts, chosen)].copy())


def champion_figures(
    seed: int,
    accuracy: Accuracy,
    counted: Callable[..., Values],
    args: Any,
) -> dict[str, float]:
    """Measure one bank.

    Args:
        seed: Of bank and draws.
        accuracy: Relative L2 (``l2``) and share of rows with the same first four (``order``).
        counted: The judge by all coalitions of (score, rows, background, owner).
        args: The benchmark's.
    """
    case = made(seed, args.champion_features, 5 if args.smoke else 20, smoke=args.smoke)
    background = case.background.values
    exact = case.forest.interventional(background).contributions(case.rows).mean(axis=0)
    groups = FeatureGroups.of(case.names, ("customer", "terminal"))
    members = {
        key: [case.names[place] for place in of]
        for key, of in zip(groups.keys, groups.members, strict=True)
        if len(of) > 1
    }
    players = Players.grouped(case.names, members)
    grouped = counted(case.score, case.rows, background, np.array(players.owner))
    return {
        "champion_features": float(len(case.names)),
        "champion_groups": float(len(players)),
        **_explained(case, None, exact, "champion", seed, accuracy, args),
        **_explained(case, players, grouped, "champion_grouped", seed, accuracy, args),
        **_shap(case, exact, seed, accuracy),
    }


def _explained(
    case: Case,
    players: Players | None,
    exact: Values,
    key: str,
    seed: int,
    accuracy: Accuracy,
    args: Any,
) -> dict[str, float]:
    options = ExplainOptions(method="sampled", evaluations=args.champion_evaluations, seed=seed)
    explainer = PlayerExplainer(case.score, case.background, players, options)
    explainer.explain(case.rows[:1])
    with stopwatch() as watch:
        found = explainer.explain(case.rows)
    near = accuracy(found.values, exact)
    return {
        f"{key}_ms_per_row": 1e3 * watch.cpu / len(exact),
        f"{key}_rel_l2": near["l2"],
        f"{key}_top4_same_order": near["order"],
        f"{key}_evaluations": float(found.evaluations.mean()),
    }


def _shap(case: Case, exact: Values, seed: int, accuracy: Accuracy) -> dict[str, float]:
    """Measure shap's Permutation at its default budget."""
    with warnings.catch_warnings():
        # shap 0.51 sets up its colour maps the old way beside matplotlib 3.11.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        import shap

    masker = shap.maskers.Independent(case.background.values, max_samples=BACKGROUND)
    permutation = shap.explainers.Permutation(case.score, masker, seed=seed)
    permutation(case.rows[:1], silent=True)  # shap compiles on first use
    with stopwatch() as watch:
        found = permutation(case.rows, max_evals=10 * (2 * len(case.names) + 1), silent=True).values
    near = accuracy(found, exact)
    return {
        "champion_shap_permutation_ms": 1e3 * watch.cpu / len(exact),
        "champion_shap_permutation_l2": near["l2"],
        "champion_shap_permutation_top4_same_order": near["order"],
    }
