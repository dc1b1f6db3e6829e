"""Interventional values equal their definition over all coalitions and background rows."""

from __future__ import annotations

import math

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.forest import (
    Forest,
    ForestError,
    InterventionalForest,
    Tree,
    backgrounds,
    cpu,
    interventional_reference,
    paths,
    read_model,
    score_reference,
)
from kernels.forest.cuts import cut
from kernels.forest.half_samples import half_sample_weights
from kernels.forest.layout import build_layout
from tests.kernels.test_forest import (
    CONTRIBUTIONS,
    EXAMPLES,
    FEATURES,
    VALUES,
    forests,
    random_forest,
    rows_of,
)


@pytest.fixture(params=["tables", "walk"])
def way(request, monkeypatch):
    """Have contributions come from tables, or from walks alone."""
    if request.param == "walk":
        monkeypatch.setattr(InterventionalForest, "_most_states", 0)
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("call", CONTRIBUTIONS)
@EXAMPLES
@given(models=forests(), rows=rows_of, background=rows_of)
def test_values_equal_their_definition(models, rows, background, call):
    x, known = np.array(rows), np.array(background)
    whole = Forest(models, FEATURES)
    forest = whole.interventional(known)
    found = CONTRIBUTIONS[call](forest, x)
    wanted = interventional_reference(models, x, known)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    base = [score_reference([model], known).mean() for model in models]
    np.testing.assert_allclose(forest.base, base, rtol=0, atol=1e-9)
    total = forest.base.sum() + found.sum(axis=(0, 2))
    np.testing.assert_allclose(total, whole.score(x), rtol=0, atol=1e-9)


def test_deep_trees_are_cut_and_some_pieces_walked(monkeypatch):
    monkeypatch.setattr(InterventionalForest, "_most_states", 24)
    monkeypatch.setattr("kernels.forest.interventional.PIECE_STATES", 24)
    models = random_forest(3, [[1, 32, 33, 8], [60, 2, 16]])
    rng = np.random.default_rng(4)
    x, known = rng.choice(VALUES, (12, FEATURES)), rng.choice(VALUES, (9, FEATURES))
    forest = Forest(models, FEATURES).interventional(known)
    assert 7 < forest.tabulated < forest.trees - 1
    wanted = interventional_reference(models, x, known)
    np.testing.assert_allclose(forest.contributions(x), wanted, rtol=0, atol=1e-9)
    score, found = forest.explain_row(x[0])
    assert score == pytest.approx(score_reference(models, x[:1])[0], abs=1e-9)
    np.testing.assert_allclose(found, wanted[:, 0], rtol=0, atol=1e-9)


@EXAMPLES
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([2, 8, 64, 512]), rows_of)
def test_pieces_of_a_tree_add_up_to_it(seed, leaves, most_states, rows):
    ((tree,),) = random_forest(seed, [[leaves]])
    pieces = cut(tree, most_states)
    x = np.array(rows)
    whole, parts = Forest([[tree]], FEATURES), Forest([pieces], FEATURES)
    np.testing.assert_allclose(parts.score(x), whole.score(x), rtol=0, atol=1e-11)
    path = parts.contributions(x)
    np.testing.assert_allclose(path, whole.contributions(x), rtol=0, atol=1e-9)
    states = build_layout(pieces).states
    several = np.array([np.count_nonzero(p.value) > 1 for p in pieces])
    assert (states[several] <= most_states).all()
    assert sum(np.count_nonzero(p.value) for p in pieces) == np.count_nonzero(tree.value)


@pytest.mark.usefixtures("way")
def test_what_holds_for_any_background():
    models = random_forest(5, [[8] * 20, [20, 12]])
    rng = np.random.default_rng(6)
    x, known = rng.normal(size=(40, FEATURES)), rng.normal(size=(15, FEATURES))
    whole = Forest(models, FEATURES)
    found = whole.interventional(known).contributions(x)
    # Nothing is told of a row against itself, and a mean over rows is a mean of values.
    assert not whole.interventional(x[:1]).contributions(x[:1]).any()
    each = np.mean([whole.interventional(row[None]).contributions(x) for row in known], axis=0)
    np.testing.assert_allclose(found, each, rtol=0, atol=1e-9)
    # Order and repetition of background rows do not matter, nor does a later change of them.
    turned = whole.interventional(np.tile(known[::-1], (3, 1))).contributions(x)
    np.testing.assert_allclose(found, turned, rtol=0, atol=1e-9)
    frozen, given_rows = known.copy(), known.copy()
    forest = whole.interventional(given_rows)
    given_rows[:] = 0.0
    assert np.array_equal(forest.contributions(x), found)
    assert np.array_equal(whole.interventional(frozen).contributions(x), found)
    # Against each other, what two rows are told apart by is told with opposite signs.
    there = whole.interventional(x[:1]).contributions(x[1:2])
    back = whole.interventional(x[1:2]).contributions(x[:1])
    np.testing.assert_allclose(there, -back, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("way")
def test_contributions_are_summed_into_groups():
    forest = Forest(random_forest(7, [[8] * 5, [6] * 4]), FEATURES)
    rng = np.random.default_rng(8)
    x, known = rng.normal(size=(1_500, FEATURES)), rng.normal(size=(20, FEATURES))
    against = forest.interventional(known)
    each = against.contributions(x)
    found = against.contributions(x, groups=[1, 0, 1, 2])
    wanted = np.stack([each[..., 1], each[..., 0] + each[..., 2], each[..., 3]], axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    # Rows are the same whatever stands before them, in this block of rows or another.
    late = against.contributions(x[1_400:])
    np.testing.assert_allclose(each[:, 1_400:], late, rtol=0, atol=1e-12)
    assert against.contributions(x[:0]).shape == (2, 0, FEATURES)


def grown(leaves, missing, rounds=20):
    rng = np.random.default_rng(9)
    x = rng.normal(size=(3_000, 6)).astype(np.float32)
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
        x[rng.random(x.shape) < 0.1] = 0.0
    filled = np.nan_to_num(x)
    y = (filled[:, 0] + filled[:, 1] * filled[:, 2] > 0.8) | np.isnan(x[:, 3])
    settings = {"objective": "binary", "num_leaves": leaves, "verbosity": -1, "num_threads": 1,
                "zero_as_missing": missing == "zero"}  # fmt: skip
    return lightgbm.train(settings, lightgbm.Dataset(x, y), rounds), x


@pytest.mark.parametrize("leaves", [8, 31])
def test_values_are_those_of_shap_where_nothing_is_missing(leaves):
    import shap

    booster, x = grown(leaves, missing="")
    forest = Forest([read_model(booster.model_to_string())[0]], 6).interventional(x[:50])
    explainer = shap.TreeExplainer(
        booster, data=x[:50].astype(float), feature_perturbation="interventional"
    )
    wanted = explainer.shap_values(x[50:80].astype(float))
    # shap 0.51 holds leaves, thresholds and sums of this method in single precision.
    np.testing.assert_allclose(forest.contributions(x[50:80])[0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", ["nan", "zero"])
def test_missing_values_go_where_lightgbm_sends_them(missing):
    booster, x = grown(8, missing)
    (trees, _) = read_model(booster.model_to_string())
    forest = Forest([trees], 6).interventional(x[:30])
    raw = booster.predict(x[:300], raw_score=True, num_threads=1)
    found = forest.contributions(x[:300])[0]
    np.testing.assert_allclose(forest.base[0], raw[:30].mean(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(forest.base[0] + found.sum(axis=1), raw, rtol=0, atol=1e-9)
    # Additivity cannot tell one feature from another; the definition can.
    few = trees[:3]
    again = Forest([few], 6).interventional(x[:30]).contributions(x[30:45])
    wanted = interventional_reference([few], x[30:45], x[:30])
    np.testing.assert_allclose(again, wanted, rtol=0, atol=1e-9)


def chain(length):
    """Return a tree whose node i tests feature i and goes on to the right."""
    nodes = np.arange(length)
    return Tree(
        feature=nodes, threshold=np.zeros(length), left=~nodes,
        right=[*nodes[1:], ~length], missing=np.zeros(length), default_left=np.zeros(length),
        count=np.arange(length + 1, 1, -1), value=np.arange(length + 1.0) + 1,
        leaf_count=np.ones(length + 1),
    )  # fmt: skip


def test_a_long_path_is_walked_to_its_closed_form():
    """All features above 0 against none: the last leaf needs all of 60, the first goes without."""
    forest = Forest([[chain(60)]], 60).interventional(np.full((1, 60), -1.0))
    found = forest.contributions(np.ones((1, 60)))[0, 0]
    assert forest.base[0] == 1.0
    assert found.sum() == pytest.approx(60.0)
    # Leaf k (of output k + 1) is reached while features 0..k-1 are known and k is not.
    for i in (0, 30, 59):
        wanted = sum(
            (k + 1) * (math.factorial(k - 1) / math.factorial(k + 1) if i < k else
                       -1 / (k + 1) if i == k else 0.0)
            for k in range(1, 60)
        ) - (1.0 if i == 0 else 0.0) + 61 / 60  # fmt: skip
        assert found[i] == pytest.approx(wanted, abs=1e-9)
    # The other way round the background's set is the one with 60 bits.
    back = Forest([[chain(60)]], 60).interventional(np.ones((1, 60)))
    there = back.contributions(np.full((1, 60), -1.0))[0, 0]
    np.testing.assert_allclose(there, -found, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_refused(monkeypatch):
    forest = Forest([[chain(3)]], 3)
    with pytest.raises(ForestError, match=r"do not fit \[n, 3\]"):
        forest.interventional(np.zeros((4, 2)))
    with pytest.raises(ForestError, match="background is empty"):
        forest.interventional(np.zeros((0, 3)))
    with pytest.raises(ForestError, match="distinct features, at most 62"):
        Forest([[chain(70)]], 70).interventional(np.zeros((1, 70)))
    monkeypatch.setattr(InterventionalForest, "_most_states", 0)
    assert forest.interventional(np.zeros((4, 3)), table_bytes=64).tabulated == 0
    with pytest.raises(ForestError, match="more than 48 bytes"):
        forest.interventional(np.zeros((4, 3)), table_bytes=48)


def test_the_python_source_of_the_kernels_agrees_with_their_machine_code(monkeypatch):
    models = random_forest(12, [[8, 5], [3, 34]])
    rng = np.random.default_rng(13)
    x, known = rng.choice(VALUES, (6, FEATURES)), rng.choice(VALUES, (5, FEATURES))

    def everything():
        found = []
        for most in (4096, 0):
            monkeypatch.setattr(InterventionalForest, "_most_states", most)
            forest = Forest(models, FEATURES).interventional(known)
            found += [forest.contributions(x), *forest.explain_row(x[0])]
        return [np.asarray(part) for part in found]

    wanted = everything()
    for module in (cpu, paths, backgrounds):
        for name, function in list(vars(module).items()):
            if hasattr(function, "py_func"):
                monkeypatch.setattr(module, name, function.py_func)
    monkeypatch.setattr(cpu, "lowest_bit", lambda word: (int(word) & -int(word)).bit_length() - 1)
    with np.errstate(over="ignore"):
        for found, expected in zip(everything(), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rows", [2, 7, 12])
def test_replicates_are_signed_means_over_the_background_rows(rows):
    models = random_forest(21, [[8] * 6, [7] * 4 + [14], [5] * 3])
    rng = np.random.default_rng(22)
    x, known = rng.choice(VALUES, (20, FEATURES)), rng.choice(VALUES, (rows, FEATURES))
    whole = Forest(models, FEATURES)
    forest = whole.interventional(known, replicates=4)
    each = np.stack([whole.interventional(row[None]).contributions(x) for row in known])
    weights = half_sample_weights(rows, 3, 4)
    wanted = np.einsum("klm,mknf->lknf", weights, each)
    np.testing.assert_allclose(forest.contributions(x), wanted[0], rtol=0, atol=1e-9)
    for n, row in enumerate(x):
        score, found, replicates = forest.explain_row_with_replicates(row)
        same_score, same = forest.explain_row(row)
        assert score == same_score
        np.testing.assert_array_equal(found, same)
        np.testing.assert_allclose(found, wanted[0, :, n], rtol=0, atol=1e-9)
        np.testing.assert_allclose(
            replicates, wanted[1:, :, n].reshape(12, FEATURES), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_half_samples_estimate_the_variance_of_a_mean(rows):
    values = np.random.default_rng(23).gamma(1.0, size=rows)
    weights = half_sample_weights(rows, 3, 4_000)
    np.testing.assert_allclose(weights.sum(axis=2)[:, 1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(weights[:, 0] @ values, values.mean(), rtol=1e-12)
    found = ((weights[:, 1:] @ values) ** 2).sum()
    assert found == pytest.approx(values.var(ddof=1) / rows, rel=0.06)
    with pytest.raises(ForestError, match="at least two background rows"):
        half_sample_weights(1, 1, 1)
    assert half_sample_weights(1, 2, 0).tolist() == [[[1.0]], [[1.0]]]
