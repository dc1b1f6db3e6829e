"""Tree SHAP values: exact against enumeration, additive or refused, background frozen."""

from __future__ import annotations

import itertools
import math

import lightgbm
import numpy as np
import pytest

from tasks.explain.additivity import check_additivity
from tasks.explain.background import Background
from tasks.explain.errors import AdditivityError
from tasks.explain.tree import TreeExplainer

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=2_000) > 1.2).astype(int)
    return x, y


@pytest.fixture(scope="module")
def boosters(data):
    x, y = data
    return [
        lightgbm.train(
            {"objective": "binary", "num_leaves": 6, "verbose": -1, "seed": s, "num_threads": 1,
             "feature_fraction": 0.6}, lightgbm.Dataset(x, y), 25,
        )
        for s in range(3)
    ]  # fmt: skip


def test_mean_of_models_adds_up_to_their_mean_log_odds(data, boosters):
    x, _ = data
    result = TreeExplainer(boosters, NAMES).explain(x[:200])
    mean = np.mean([b.predict(x[:200], raw_score=True) for b in boosters], axis=0)
    np.testing.assert_allclose(result.base.mean() + result.values.sum(axis=1), mean, atol=1e-9)
    np.testing.assert_allclose(result.raw_score, mean, atol=1e-12)
    assert result.additivity_gap < 1e-9
    assert result.method == "path"
    assert result.mean_abs.argmax() in (0, 1, 2)


def test_text_classifier_and_booster_explain_alike(data, boosters):
    x, y = data
    classifier = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=4, verbose=-1, n_jobs=1)
    classifier.fit(x, y)
    for model in (boosters[0], classifier):
        booster = getattr(model, "booster_", model)
        direct = TreeExplainer([model], NAMES).explain(x[:20])
        text = TreeExplainer([booster.model_to_string()], NAMES).explain(x[:20])
        np.testing.assert_allclose(direct.values, text.values, atol=1e-12)


def test_contributions_are_lightgbms_own(data, boosters):
    x, _ = data
    result = TreeExplainer(boosters, NAMES).explain(x[:100])
    own = np.stack([b.predict(x[:100], pred_contrib=True) for b in boosters])
    np.testing.assert_allclose(result.per_model, own[..., :-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.base, own[:, 0, -1], rtol=0, atol=1e-12)


def test_models_the_kernel_does_not_read_are_explained_by_lightgbm(caplog):
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 30, 2_000), rng.normal(size=2_000)], axis=1)
    y = np.isin(x[:, 0], [3, 7, 19]) + x[:, 1] > 0.5
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    model = lightgbm.train(settings, lightgbm.Dataset(x, y, categorical_feature=[0]), 5)
    with caplog.at_level("INFO"):
        result = TreeExplainer([model], ("code", "amount")).explain(x[:50])
    assert "LightGBM itself explains the model" in caplog.text
    own = model.predict(x[:50], pred_contrib=True)
    np.testing.assert_array_equal(result.values, own[:, :-1])


def worth(node, row, known):
    """Mean raw score of a tree where only the ``known`` features of a row are known."""
    if "leaf_value" in node:
        return node["leaf_value"]
    children = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        left = row[node["split_feature"]] <= node["threshold"]
        return worth(children[0 if left else 1], row, known)
    rows = [c.get("leaf_count", c.get("internal_count")) for c in children]
    return np.average([worth(c, row, known) for c in children], weights=rows)


def test_values_equal_enumeration_of_all_coalitions(data, boosters):
    x, _ = data
    result = TreeExplainer(boosters[:1], NAMES).explain(x[:3])
    trees = [t["tree_structure"] for t in boosters[0].dump_model()["tree_info"]]
    players = set(range(5))
    coalitions = [frozenset(c) for s in range(6) for c in itertools.combinations(players, s)]
    for row, found in zip(x[:3].astype(float), result.values, strict=True):
        value = {c: sum(worth(tree, row, c) for tree in trees) for c in coalitions}
        assert result.base[0] == pytest.approx(value[frozenset()])
        for p in players:
            exact = sum(
                math.factorial(len(c)) * math.factorial(4 - len(c)) / math.factorial(5)
                * (value[c | {p}] - value[c])
                for c in coalitions
                if p not in c
            )  # fmt: skip
            assert found[p] == pytest.approx(exact, abs=1e-9)


def test_missing_values_are_explained_exactly_where_interventional_shap_is_not(data, boosters):
    """The second half is a negative result: why shap is not used for trees and a background."""
    import shap

    x = data[0][:50].copy()
    x[:25, 0] = np.nan
    result = TreeExplainer(boosters[:1], NAMES).explain(x)
    assert result.additivity_gap < 1e-9
    other = shap.TreeExplainer(
        boosters[0], data=data[0][:16], feature_perturbation="interventional"
    )
    values = np.asarray(other.shap_values(x, check_additivity=False))
    with pytest.raises(AdditivityError, match=r"misses its score by 0\.7"):
        check_additivity(values, float(np.ravel(other.expected_value)[-1]), result.raw_score)
    ours = TreeExplainer(boosters[:1], NAMES, background=Background(NAMES, data[0][:16])).explain(x)
    assert ours.additivity_gap < 1e-9
    np.testing.assert_allclose(ours.values[25:], values[25:], rtol=0, atol=1e-6)


def test_values_against_a_background_equal_enumeration_of_all_coalitions(data, boosters):
    x, background = data[0][:3], Background(NAMES, data[0][100:120].copy())
    result = TreeExplainer(boosters, NAMES, background=background).explain(x)
    assert (result.method, result.background_sha256) == ("interventional", background.sha256)
    coalitions = [frozenset(c) for s in range(6) for c in itertools.combinations(range(5), s)]
    for row, found in zip(x, result.values, strict=True):
        value = {}
        for known in coalitions:
            mixed = background.values.copy()
            mixed[:, sorted(known)] = row[sorted(known)]
            value[known] = np.mean([b.predict(mixed, raw_score=True) for b in boosters])
        assert result.base.mean() == pytest.approx(value[frozenset()], abs=1e-12)
        for p in range(5):
            exact = sum(
                math.factorial(len(c)) * math.factorial(4 - len(c)) / math.factorial(5)
                * (value[c | {p}] - value[c])
                for c in coalitions
                if p not in c
            )  # fmt: skip
            assert found[p] == pytest.approx(exact, abs=1e-9)


def test_what_cannot_be_explained_against_a_background_is_an_error(boosters):
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 30, 2_000), rng.normal(size=2_000)], axis=1).astype(np.float32)
    y = np.isin(x[:, 0], [3, 7, 19]) + x[:, 1] > 0.5
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    model = lightgbm.train(settings, lightgbm.Dataset(x, y, categorical_feature=[0]), 5)
    names = ("code", "amount")
    explainer = TreeExplainer([model], names, background=Background(names, x[:10].copy()))
    with pytest.raises(ValueError, match=r"against a background: .*categor.*path-dependent"):
        explainer.explain(x[:5])
    with pytest.raises(ValueError, match="other features than the model"):
        TreeExplainer(boosters, NAMES, background=Background(NAMES[::-1], np.zeros((1, 5), "f4")))


def test_additivity_gap_is_an_error_that_names_the_row():
    contributions = np.array([[1.0, 2.0], [0.5, 0.5]])
    assert check_additivity(contributions, 1.0, np.array([4.0, 2.0])) == 0.0
    with pytest.raises(AdditivityError, match=r"row 1 misses its score by 0\.3"):
        check_additivity(contributions, 1.0, np.array([4.0, 2.3]))
    with pytest.raises(AdditivityError, match="row 0"):
        check_additivity(contributions * np.nan, 1.0, np.array([4.0, 2.0]))


def test_no_rows_give_an_empty_explanation(data, boosters):
    result = TreeExplainer(boosters, NAMES).explain(np.zeros((0, 5)))
    assert result.values.shape == (0, 5)
    assert result.mean_abs.tolist() == [0.0] * 5
    for background in (None, Background(NAMES, data[0][:8])):
        explainer = TreeExplainer(boosters, NAMES, background=background)
        empty, one = explainer.explain(np.zeros((0, 5))), explainer.explain(data[0][:1])
        np.testing.assert_allclose(empty.base, one.base, rtol=0, atol=1e-12)
        assert empty.base.any()


def test_a_model_of_several_classes_is_refused(data):
    x, _ = data
    model = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4, verbose=-1, n_jobs=1)
    model.fit(x[:300], np.arange(300) % 3)
    with pytest.raises(ValueError, match=r"model scores 3 classes.*one model for each class"):
        TreeExplainer([model], NAMES)


def test_background_is_frozen_and_vouched_for(data):
    x = data[0][:10].copy()
    first = Background(NAMES, x)
    assert first.sha256 == Background(NAMES, x.copy()).sha256
    assert first.sha256 != Background(NAMES, data[0][1:11].copy()).sha256
    assert first.sha256 != Background(NAMES[::-1], x.copy()).sha256
    assert Background(NAMES, x.copy(), first.sha256).sha256 == first.sha256
    with pytest.raises(ValueError, match="read-only"):
        first.values[0, 0] = 1.0
    changed = x.copy()
    changed[0, 0] += 1e-3
    with pytest.raises(ValueError, match="does not match its sha256"):
        Background(NAMES, changed, first.sha256)
    held, kept = x.copy(), x[:4].copy()
    part = Background(NAMES, held[:4])
    held[0, 0] = 9.0
    np.testing.assert_array_equal(part.values, kept)
    assert Background(NAMES, x[:4].astype(np.float64)).values.dtype == np.float32
    with pytest.raises(ValueError, match="empty"):
        Background(NAMES, x[:0])
    with pytest.raises(ValueError, match="5 feature names"):
        Background(NAMES, x[:2, :3])


def test_what_cannot_be_explained_is_refused(data, boosters):
    x, _ = data
    with pytest.raises(ValueError, match="no tree models"):
        TreeExplainer([], NAMES)
    with pytest.raises(ValueError, match="5 features, the feature list 2"):
        TreeExplainer(boosters, NAMES[:2])
    with pytest.raises(ValueError, match="do not fit 5 features"):
        TreeExplainer(boosters, NAMES).explain(x[:, :4])
    with pytest.raises(ValueError, match="cannot explain a dict as trees"):
        TreeExplainer([{}], NAMES)
