"""Forests read from LightGBM's text score and explain as LightGBM itself does."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from kernels.forest import Forest, ForestError, read_model

KINDS = {
    "as shipped": {"use_missing": False, "num_leaves": 8, "max_bin": 4095, "min_data_in_bin": 1},
    "missing is NaN": {"num_leaves": 8},
    "missing is zero": {"num_leaves": 8, "zero_as_missing": True},
    "sixteen leaves": {"num_leaves": 16, "bagging_fraction": 0.7, "bagging_freq": 1},
    "walked": {"num_leaves": 50, "min_data_in_leaf": 5},
    "boosting from zero": {"num_leaves": 8, "boost_from_average": False},
    "regression": {"objective": "regression", "num_leaves": 8},
}


def sample(seed, n):
    """Rows of wild scales with ties, zeros and, in some columns, NaN."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=n) > 1).astype(float)
    x[:, 3] = np.round(x[:, 3], 1)
    x[:, 4] = np.where(x[:, 4] > 0, 1e9, x[:, 4] * 1e4)
    x[:, 5:7] *= rng.random((n, 2)) > 0.5
    x[rng.random((n, 10)) < [0.2, 0, 0.1, 0, 0, 0.1, 0, 0, 0, 0]] = np.nan
    return x.astype(np.float32), y


def hard_rows(x):
    """Rows with all values a float can take, thresholds themselves among them."""
    rng = np.random.default_rng(0)
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-35, -1e-35, 1e-36, 1.1e-35, 1e38, -1e38]
    rows = np.concatenate([x, x])
    where = rng.random(rows.shape) < 0.3
    rows[where] = rng.choice(odd, where.sum())
    return np.concatenate([x, rows.astype(np.float32)])


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    x, y = sample(1, 1500)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 10,
                "deterministic": True, "feature_fraction": 0.7}  # fmt: skip
    settings |= KINDS[request.param]
    boosters = [
        lightgbm.train(settings | {"seed": seed}, lightgbm.Dataset(x, y, params=settings), 20)
        for seed in range(2)
    ]
    models = [read_model(b.model_to_string()) for b in boosters]
    assert {width for _, width in models} == {10}
    return boosters, Forest([trees for trees, _ in models], 10)


def thresholds_of(booster):
    text = booster.model_to_string()
    lines = [line for line in text.splitlines() if line.startswith("threshold=")]
    return np.array([float(v) for line in lines for v in line[10:].split()])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_equal_lightgbm(trained, kind):
    boosters, forest = trained
    x = hard_rows(sample(2, 150)[0]).astype(kind)
    at = np.resize(thresholds_of(boosters[0]), (60, 10))
    with np.errstate(over="ignore"):
        x = np.concatenate([x, at.astype(kind), np.nextafter(at.astype(kind), kind(np.inf))])
    wanted = sum(b.predict(x, raw_score=True, num_threads=1) for b in boosters)
    np.testing.assert_allclose(forest.score(x), wanted, rtol=0, atol=1e-12)
    assert [forest.score_row(row) for row in x] == forest.score(x).tolist()


def test_contributions_equal_lightgbm(trained):
    boosters, forest = trained
    x = hard_rows(sample(3, 60)[0])
    wanted = np.stack([b.predict(x, pred_contrib=True, num_threads=1) for b in boosters])
    np.testing.assert_allclose(forest.base, wanted[:, 0, -1], rtol=0, atol=1e-12)
    found = forest.contributions(x)
    np.testing.assert_allclose(found, wanted[..., :-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(forest.explain_row(x[5])[1], found[:, 5], rtol=0, atol=1e-12)


def test_models_of_constants_are_read():
    x, _ = sample(4, 300)
    booster = lightgbm.train(
        {"objective": "regression", "verbosity": -1}, lightgbm.Dataset(x, np.full(300, 3.0)), 3
    )
    trees, width = read_model(booster.model_to_string())
    forest = Forest([trees], width)
    np.testing.assert_allclose(forest.score(x), booster.predict(x), atol=1e-12)


def refused(settings, y=None, dataset=None, n=400):
    x, label = sample(5, n)
    data = lightgbm.Dataset(np.nan_to_num(x), label if y is None else y, **(dataset or {}))
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1} | settings, data, 3)
    return booster.model_to_string()


def test_models_of_other_kinds_are_refused():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 400)
    several = {"objective": "multiclass", "num_class": 3}
    with pytest.raises(ForestError, match="several outputs"):
        read_model(refused(several, classes))
    averaged = {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}
    with pytest.raises(ForestError, match="only sums are read"):
        read_model(refused(averaged))
    with pytest.raises(ForestError, match="linear_tree=false"):
        read_model(refused({"objective": "regression", "linear_tree": True}))
    with pytest.raises(ForestError, match="not a LightGBM model text"):
        read_model("version=v4")


def test_a_categorical_split_is_refused_with_the_way_out():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 30, 2000).astype(float)
    y = np.isin(code, [3, 7, 19]).astype(float)
    data = lightgbm.Dataset(code[:, None], y, categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 3)
    with pytest.raises(ForestError, match="tree 0 of the model: a categorical split is not read"):
        read_model(booster.model_to_string())


def test_a_damaged_text_names_what_it_lacks():
    text = refused({"objective": "binary"})
    lines = text.splitlines()
    without = "\n".join(line for line in lines if not line.startswith("internal_count"))
    with pytest.raises(ForestError, match="tree 0 of the model: lacks 'internal_count'"):
        read_model(without)
    with pytest.raises(ForestError, match="tree 0 of the model: could not convert"):
        read_model(text.replace("threshold=", "threshold=x"))
