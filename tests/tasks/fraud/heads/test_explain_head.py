"""Every head that can ship gives contributions that add up to its own log-odds."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.explain.background import Background
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import rank_reasons, top_groups
from tasks.fraud.graph import SIGNALS
from tasks.fraud.heads import (
    HeadError,
    LogisticConfig,
    TreeConfig,
    fit_logistic,
    fit_trees,
)
from tasks.fraud.heads.explain import explain_head
from tasks.fraud.heads.head import Blend, Head
from tasks.fraud.heads.mlp import MlpScorer
from tasks.fraud.heads.scaling import fit_scaling

NAMES = ("amount", "payer.ratio_30d", "payer.gap", "payee.risk_7d")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, 2.0, size=(3_000, 4)).astype(np.float32)
    y = (x[:, 1] + 2 * x[:, 3] + rng.normal(size=3_000) > 16).astype(np.int8)
    return x, y


def background_of(x):
    return Background(NAMES, x[::30].copy())


@pytest.fixture(scope="module")
def trees(rows):
    return fit_trees(*rows, TreeConfig(rounds=20, seeds=2, min_rows=20))


@pytest.fixture(scope="module")
def logistic(rows):
    return fit_logistic(*rows, LogisticConfig(knots=2))


@pytest.mark.parametrize("kind", ["trees", "logistic", "blend", "calibrated"])
def test_contributions_add_up_to_the_head(kind, rows, trees, logistic):
    x, y = rows
    head = {
        "trees": trees,
        "logistic": logistic,
        "blend": Head(Blend((trees.scorer, logistic.scorer), (1.0, 0.3))),
        "calibrated": trees.calibrated(x, y),
    }[kind]
    result = explain_head(head, NAMES, x[:200], background_of(x))
    np.testing.assert_allclose(
        result.base.mean() + result.values.sum(axis=1), head.logit(x[:200]), atol=1e-6
    )
    assert set(np.argsort(-result.mean_abs)[:2]) == {1, 3}


def test_a_scorer_alone_is_explained_too(rows, trees):
    x, _ = rows
    background = background_of(x)
    alone = explain_head(trees.scorer, NAMES, x[:5], background)
    np.testing.assert_array_equal(
        alone.values, explain_head(trees, NAMES, x[:5], background).values
    )


def test_what_is_not_exact_or_does_not_fit_is_refused(rows, trees):
    x, y = rows
    background = background_of(x)
    network = Head(MlpScorer(fit_scaling(x), ((np.ones((1, 4)), np.zeros(1)),)))
    with pytest.raises(HeadError, match="MlpScorer has no exact contributions"):
        explain_head(network, NAMES, x[:5], background)
    with pytest.raises(HeadError, match="against a background"):
        explain_head(fit_logistic(x, y), NAMES, x[:5])
    with pytest.raises(ValueError, match="other features than the head"):
        explain_head(trees, NAMES[::-1], x[:5], background)
    with pytest.raises(ValueError, match="3 names for the 4 inputs"):
        explain_head(trees, NAMES[:3], x[:5])
    with pytest.raises(HeadError, match="features have shape"):
        explain_head(trees, NAMES, x[:5, :2], background)


def test_reasons_name_the_network_behind_the_features(rows):
    x, _ = rows
    y = (x[:, 3] + x[:, 1] > 9).astype(np.int8)
    head = fit_trees(x, y, TreeConfig(rounds=20, seeds=2, min_rows=20))
    highest = x[np.argsort(-head.logit(x))[:3]]
    names = (*NAMES[:3], SIGNALS[0])
    explanation = explain_head(head, names, highest)
    groups = FeatureGroups.of(names, ("payer", "payee"))
    told = {r.text for found in rank_reasons(explanation, highest, groups) for r in found}
    assert "recent partners and place in the transaction graph look unusual" in told
    assert any(t.startswith("amount is") and "payer" in t for t in told)
    strongest = top_groups(explanation, groups, limit=2)
    assert {name for name, _ in strongest} == {"graph network", "payer, 30 days"}
