"""The amortised explainer: what passes its gate keeps the promise, the rest is the engine's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from tasks.explain.amortised.build import build, limit_of
from tasks.explain.amortised.config import AmortisedConfig, AmortisedError
from tasks.explain.amortised.explainer import Gate
from tasks.explain.amortised.files import CONTRACT, WEIGHTS, _settings_digest, load, save
from tasks.explain.amortised.network import ValueNet, relative_errors
from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import BackgroundError, ScoreError
from tasks.explain.players import Players
from tasks.explain.scores import TorchScores

FEATURES = ("a", "b", "c", "d", "still")
CONFIG = AmortisedConfig(hidden=(32, 32), steps=400, batch=256, promise=0.15, held_out=0.1)


def rows_of(count, seed):
    rows = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    rows[:, 4] = 3.0
    return rows


def module_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1)).eval()


def engine_of(function=None, *, seed=1, players=None, method="sampled"):
    background = Background(FEATURES, rows_of(8, seed))
    options = ExplainOptions(method=method, evaluations=300)
    return PlayerExplainer(function or TorchScores(module_of()), background, players, options)


@pytest.fixture(scope="module")
def fast():
    return build(engine_of(), rows_of(2_000, 2), CONFIG)


def test_rows_that_pass_keep_the_promise_against_the_exact_values(fast):
    fresh = rows_of(1_000, 3)
    found = fast.explain(fresh)
    exact = engine_of(method="exact").explain(fresh).values
    passed = found.evaluations == 0
    missed = np.linalg.norm(found.values - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert passed.mean() > 0.5
    assert missed[passed].mean() <= CONFIG.promise
    assert missed[passed].mean() == pytest.approx(fast.gate.rel_l2, rel=0.25)
    assert 1 - passed.mean() == pytest.approx(fast.gate.fallback, abs=0.06)
    assert found.method == "amortised"
    share = found.errors[passed] * np.sqrt(4) / np.linalg.norm(exact[passed], axis=1)[:, None]
    assert 0.3 < np.median(share.max(axis=1)) / np.median(missed[passed]) < 3


def test_the_gate_sees_which_rows_it_explains_badly():
    def rough(rows):
        return rows[:, 2] + 2 * (rows[:, 1] > 0.5) * np.sin(5 * rows[:, 0])

    fast = build(engine_of(rough), rows_of(2_000, 2), replace(CONFIG, promise=0.9))
    fresh = rows_of(1_000, 4)
    exact = engine_of(rough, method="exact").explain(fresh)
    values, log_errors = fast.predict(fresh, exact.scores - exact.base)
    size = np.linalg.norm(exact.values, axis=1)
    missed = np.linalg.norm(values - exact.values, axis=1) / size
    order = np.argsort(log_errors)
    assert missed[order[500:]].mean() > 1.5 * missed[order[:500]].mean()


@given(rows=arrays(np.float32, (7, 5), elements=st.floats(-8, 8, width=32)))
@settings(max_examples=15, deadline=None)
def test_values_add_up_and_what_falls_back_is_the_engines(fast, rows):
    found = fast.explain(rows)
    back = found.evaluations > 0
    outside = ((rows < fast.gate.low) | (rows > fast.gate.high)).any(axis=1)
    assert back[outside].all()
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.scores, atol=1e-12)
    if back.any():
        again = fast.engine.explain(rows[back])
        np.testing.assert_array_equal(found.values[back], again.values)
        np.testing.assert_array_equal(found.errors[back], again.errors)


def test_a_feature_like_all_of_the_background_has_exactly_nothing(fast):
    found = fast.explain(rows_of(50, 5))
    assert (found.evaluations == 0).any()
    assert (found.values[:, 4] == 0).all()
    assert (found.errors[:, 4] == 0).all()


def test_wrong_rows_are_refused(fast):
    assert fast.explain(rows_of(0, 1)).values.shape == (0, 5)
    with pytest.raises(BackgroundError, match=r"rows of shape \(2, 4\) for 5 features"):
        fast.explain(np.zeros((2, 4)))
    with pytest.raises(ScoreError, match="row 1 is nan"):
        fast.explain(np.array([[0, 0, 0, 0, 3], [0, np.nan, 0, 0, 3]], dtype=np.float32))


def test_a_missing_value_never_passes():
    gate = Gate(np.zeros(2, np.float32), np.ones(2, np.float32), 0.0, 0.0, 0.0, 100)
    rows = np.array([[0.5, 0.5], [np.nan, 0.5], [0.5, 1.5], [0.5, 0.5]])
    found = gate.passes(rows, np.array([-1.0, -1.0, -1.0, np.nan]))
    assert found.tolist() == [True, False, False, False]


def test_rows_of_float64_pass_before_and_after_saving(tmp_path):
    rows = rows_of(2_000, 2).astype(np.float64)
    rows[:, 4] = 0.1
    fast = build(engine_of(), rows, CONFIG)
    save(fast, tmp_path)
    again = load(tmp_path, engine_of())
    passed = fast.explain(rows[:200]).evaluations == 0
    assert passed.mean() > 0.5
    np.testing.assert_array_equal(again.explain(rows[:200]).evaluations == 0, passed)
    for one in (fast, again):
        assert one.gate.low.dtype == one.gate.high.dtype == np.float32
        assert one.gate.passes(rows[:200], np.full(200, -np.inf)).mean() > 0.9


def test_the_same_build_is_the_same_network(fast):
    again = build(engine_of(), rows_of(2_000, 2), CONFIG)
    for name, value in fast.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name
    assert again.gate.log_error == fast.gate.log_error


def test_groups_of_features_are_players():
    players = Players.grouped(FEATURES, {"ab": ["a", "b"], "cd": ["c", "d"]})
    fast = build(engine_of(players=players), rows_of(2_000, 2), CONFIG)
    found = fast.explain(rows_of(100, 3))
    assert found.players == ("ab", "cd", "still")
    assert found.values.shape == (100, 3)


def test_a_promise_that_cannot_be_kept_is_an_error():
    config = AmortisedConfig(hidden=(4,), steps=2, promise=0.001, held_out=0.5)
    with pytest.raises(AmortisedError, match=r"promised are 0\.001: give more rows or steps"):
        build(engine_of(), rows_of(400, 2), config)
    with pytest.raises(AmortisedError, match="40 of 400 rows would be held out"):
        build(engine_of(), rows_of(400, 2), CONFIG)


def test_held_out_rows_unlike_the_learned_ones_do_not_set_the_gate():
    with pytest.raises(AmortisedError, match="99 held-out rows lie within"):
        limit_of(np.zeros(99), np.zeros(99), 0.05)


@given(missed=st.lists(st.floats(0, 1), min_size=100, max_size=300), promise=st.floats(0.05, 0.9))
@settings(max_examples=50, deadline=None)
def test_the_limit_keeps_the_promise_on_held_out_rows(missed, promise):
    missed = np.array(missed)
    expected = np.random.default_rng(0).permutation(len(missed)).astype(float)
    order = missed[np.argsort(expected)]
    bounds = [
        order[:count].mean() + 2 * order[:count].std() / np.sqrt(count)
        for count in range(100, len(missed) + 1)
    ]
    if min(bounds) > promise + 1e-9:
        with pytest.raises(AmortisedError, match="give more rows or steps"):
            limit_of(expected, missed, promise)
        return
    limit, mean = limit_of(expected, missed, promise + 1e-8)
    passed = missed[expected <= limit]
    assert len(passed) >= 100
    assert passed.mean() == pytest.approx(mean)
    assert mean + 2 * passed.std() / np.sqrt(len(passed)) <= promise + 1e-7


def test_the_limit_does_not_part_rows_of_one_expected_error():
    missed = np.repeat([0.01, 0.9], 100)
    with pytest.raises(AmortisedError, match="promised are"):
        limit_of(np.zeros(200), missed, 0.05)
    expected = np.repeat([0.0, 1.0], 150)
    missed = np.concatenate([np.full(200, 0.01), np.full(100, 0.9)])
    assert limit_of(expected, missed, 0.05) == (0.0, 0.01)


def test_rows_that_are_not_finite_are_refused_before_any_work():
    rows = rows_of(2_000, 2)
    rows[5, 1] = np.nan
    calls = []
    engine = engine_of(lambda some: calls.append(len(some)) or np.nan_to_num(some).sum(axis=1))
    calls.clear()
    with pytest.raises(AmortisedError, match=r"row 5 has nan as 'b' \(1 of 2000 rows"):
        build(engine, rows, CONFIG)
    assert not calls


def test_errors_are_as_long_as_what_the_values_miss():
    def curved(rows):
        return np.tanh(rows[:, 0] * rows[:, 1]) + rows[:, 2] ** 2 / 2 + np.sin(2 * rows[:, 3])

    engine = engine_of(curved, method="exact")
    fast = build(engine, rows_of(4_000, 2), replace(CONFIG, promise=0.9))
    fresh = rows_of(2_000, 3)
    found, exact = fast.explain(fresh), engine.explain(fresh)
    passed = found.evaluations == 0
    misses = (found.values - exact.values)[passed][:, :4] / found.errors[passed][:, :4]
    assert np.sqrt(np.mean(misses**2)) == pytest.approx(1.0, abs=0.15)
    assert fast.gate.error_scale > 1


def test_saved_and_loaded_it_says_the_same(fast, tmp_path):
    save(fast, tmp_path / "fast")
    again = load(tmp_path / "fast", engine_of())
    rows = rows_of(200, 6)
    np.testing.assert_array_equal(again.explain(rows).values, fast.explain(rows).values)
    assert again.config == fast.config
    contract = json.loads((tmp_path / "fast" / CONTRACT).read_text())
    assert contract["background_sha256"] == fast.engine.background.sha256
    save(again, tmp_path / "twice")
    for name in (WEIGHTS, CONTRACT):
        assert (tmp_path / "fast" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_another_model_background_or_division_is_refused(fast, tmp_path):
    save(fast, tmp_path)
    with pytest.raises(AmortisedError, match="another model"):
        load(tmp_path, engine_of(TorchScores(module_of(seed=9))))
    with pytest.raises(AmortisedError, match="another background"):
        load(tmp_path, engine_of(seed=9))
    players = Players.grouped(FEATURES, {"ab": ["a", "b"]})
    with pytest.raises(AmortisedError, match="another players"):
        load(tmp_path, engine_of(players=players))


def test_a_plain_function_is_known_by_its_scores(tmp_path):
    def product(rows):
        return rows[:, 0] * rows[:, 1] + rows[:, 2]

    save(build(engine_of(product), rows_of(2_000, 2), CONFIG), tmp_path)
    load(tmp_path, engine_of(product))
    with pytest.raises(AmortisedError, match="scores the background otherwise"):
        load(tmp_path, engine_of(lambda rows: product(rows) + rows[:, 3]))


def test_changed_files_are_refused(fast, tmp_path):
    with pytest.raises(AmortisedError, match="no amortised explainer in"):
        load(tmp_path, engine_of())
    save(fast, tmp_path)
    contract, weights = tmp_path / CONTRACT, tmp_path / WEIGHTS
    text, packed = contract.read_text(), weights.read_bytes()
    weights.write_bytes(packed[:-4] + b"\0\0\0\1")
    with pytest.raises(AmortisedError, match="was changed after it was saved"):
        load(tmp_path, engine_of())
    weights.write_bytes(packed)
    for old, new, word in (
        ('"format": 2', '"format": 1', "format 2"),
        ('"log_error"', '"log"', "gate or config of .* were changed"),
        ('"held_out": 200', '"held_out": 900', "gate or config of .* were changed"),
        ('"promise": 0.15', '"promise": 5', "gate or config of .* were changed"),
        ("{", "[", "no amortised explainer"),
    ):
        contract.write_text(text.replace(old, new, 1))
        with pytest.raises(AmortisedError, match=word):
            load(tmp_path, engine_of())


@pytest.mark.parametrize(
    "change",
    [
        lambda contract: contract["config"].update(promise=5),
        lambda contract: contract["config"].update(promises=0.1),
        lambda contract: contract["gate"].pop("log_error"),
        lambda contract: contract.pop("config"),
    ],
    ids=["promise", "unknown", "missing", "none"],
)
def test_a_contract_that_says_nonsense_is_damaged_even_with_its_digest(fast, tmp_path, change):
    save(fast, tmp_path)
    contract = json.loads((tmp_path / CONTRACT).read_text())
    change(contract)
    contract["settings_sha256"] = _settings_digest(contract)
    (tmp_path / CONTRACT).write_text(json.dumps(contract))
    with pytest.raises(AmortisedError, match="damaged"):
        load(tmp_path, engine_of())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"promise": 0.0}, "promise"),
        ({"hidden": ()}, "hidden"),
        ({"steps": 0}, "steps"),
        ({"seed": -1}, "seed"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_settings_name_the_fix(wrong, word):
    with pytest.raises(ValueError, match=word):
        AmortisedConfig(**wrong)


def test_the_network_adds_up_before_it_is_trained():
    net = ValueNet(3, 2, (8,))
    values, log_errors = net(torch.randn(5, 3), torch.arange(5.0))
    torch.testing.assert_close(values.sum(dim=1), torch.arange(5.0))
    assert log_errors.shape == (5,)
    assert relative_errors(torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [0.0]
