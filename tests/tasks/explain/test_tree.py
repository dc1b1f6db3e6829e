"""Tree SHAP values: exact against enumeration, additive or refused, background frozen."""

from __future__ import annotations

import itertools
import math

import lightgbm
import numpy as np
import pytest

from tasks.explain.tree import (
    AdditivityError,
    Background,
    TreeExplainer,
    check_additivity,
    freeze_background,
)

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


def test_interventional_values_equal_enumeration_of_all_coalitions(data, boosters):
    x, _ = data
    background = freeze_background(NAMES, x, size=16, seed=3)
    result = TreeExplainer(boosters[:1], NAMES, background=background).explain(x[:3])
    assert result.method == "interventional"
    assert result.background_sha256 == background.sha256
    players = set(range(5))
    coalitions = [frozenset(c) for s in range(6) for c in itertools.combinations(players, s)]
    for row, found in zip(x[:3], result.values, strict=True):
        mixed = np.stack([background.values] * len(coalitions))
        for rows, known in zip(mixed, coalitions, strict=True):
            rows[:, list(known)] = row[list(known)]
        raw = boosters[0].predict(mixed.reshape(-1, 5), raw_score=True)
        worth = dict(zip(coalitions, raw.reshape(len(coalitions), -1).mean(axis=1), strict=True))
        for p in players:
            exact = sum(
                math.factorial(len(c)) * math.factorial(4 - len(c)) / math.factorial(5)
                * (worth[c | {p}] - worth[c])
                for c in coalitions
                if p not in c
            )  # fmt: skip
            assert found[p] == pytest.approx(exact, abs=1e-5)


def test_missing_values_are_explained_by_path_and_refused_with_a_background(data, boosters):
    x = data[0][:50].copy()
    x[:25, 0] = np.nan
    assert TreeExplainer(boosters, NAMES).explain(x).additivity_gap < 1e-9
    background = freeze_background(NAMES, data[0], size=16)
    with pytest.raises(AdditivityError, match="rows with missing values without a background"):
        TreeExplainer(boosters, NAMES, background=background).explain(x)


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


def test_background_is_frozen_and_vouched_for(data):
    x, _ = data
    first = freeze_background(NAMES, x, size=10, seed=1)
    assert first.sha256 == freeze_background(NAMES, x, size=10, seed=1).sha256
    assert first.sha256 != freeze_background(NAMES, x, size=10, seed=2).sha256
    assert first.sha256 != freeze_background(NAMES[::-1], x, size=10, seed=1).sha256
    assert Background(NAMES, first.values.copy(), first.sha256).sha256 == first.sha256
    with pytest.raises(ValueError, match="read-only"):
        first.values[0, 0] = 1.0
    changed = first.values.copy()
    changed[0, 0] += 1e-3
    with pytest.raises(ValueError, match="does not match its sha256"):
        Background(NAMES, changed, first.sha256)
    assert len(freeze_background(NAMES, x[:3], size=10).values) == 3
    with pytest.raises(ValueError, match="empty"):
        freeze_background(NAMES, x[:0])
    with pytest.raises(ValueError, match="5 feature names"):
        Background(NAMES, x[:2, :3])


def test_what_cannot_be_explained_is_refused(data, boosters):
    x, _ = data
    with pytest.raises(ValueError, match="no tree models"):
        TreeExplainer([], NAMES)
    with pytest.raises(ValueError, match="5 features, the feature list 2"):
        TreeExplainer(boosters, NAMES[:2])
    with pytest.raises(ValueError, match="other features"):
        TreeExplainer(boosters, NAMES, background=freeze_background(NAMES[::-1], x))
    with pytest.raises(ValueError, match="do not fit 5 features"):
        TreeExplainer(boosters, NAMES).explain(x[:, :4])
    with pytest.raises(ValueError, match="cannot explain a dict as trees"):
        TreeExplainer([{}], NAMES)
