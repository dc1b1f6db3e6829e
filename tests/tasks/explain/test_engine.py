"""The engine by players: exact by the definition, honest about draws, errors named."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tasks.explain import split_linear
from tasks.explain.background import Background
from tasks.explain.coalition_values import MixedRows
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import (
    BackgroundError,
    ExplanationError,
    ExplanationTimeoutError,
    PlayersError,
    ScoreError,
    UnstableScoreError,
)
from tasks.explain.players import Players
from tasks.explain.scores import TorchScores

SAMPLED = ExplainOptions(method="sampled", evaluations=8_000)


def background_of(features, rows=6, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32)
    return Background(tuple(f"f{i}" for i in range(features)), values)


def rows_of(features, count=3, seed=1):
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)


def by_definition(function, rows, background, players):
    """Shapley values by every coalition of every row; nothing of the engine is used."""
    count, owner = len(players), np.array(players.owner)

    def worth(row, inside):
        mixed = background.values.copy()
        columns = np.isin(owner, list(inside))
        mixed[:, columns] = row[columns]
        return float(np.mean(function(mixed)))

    values = np.zeros((len(rows), count))
    for place, row in enumerate(rows):
        for player in range(count):
            others = [other for other in range(count) if other != player]
            for size in range(count):
                share = math.factorial(size) * math.factorial(count - size - 1)
                for inside in itertools.combinations(others, size):
                    gain = worth(row, (*inside, player)) - worth(row, inside)
                    values[place, player] += share / math.factorial(count) * gain
    return values


def wavy(rows):
    return np.sin(rows[:, 0]) * rows[:, 1] + rows[:, 2] * (rows[:, 3] > 0) + rows[:, -1]


def net(features, *, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)]
    return nn.Sequential(*layers).eval()


@given(
    groups=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    rows=st.integers(1, 4),
    games=st.integers(1, 5),
    seed=st.integers(0, 1_000),
    torch_module=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_exact_values_are_those_of_the_definition(groups, rows, games, seed, torch_module):
    names = tuple(f"f{i}" for i in range(5))
    members = {}
    for feature, group in zip(names, groups, strict=True):
        members.setdefault(f"g{group}", []).append(feature)
    players = Players.grouped(names, members)
    background, cases = background_of(5, games, seed), rows_of(5, rows, seed + 1)
    function = TorchScores(net(5, seed=seed).double()) if torch_module else wavy
    found = PlayerExplainer(function, background, players).explain(cases)
    expected = by_definition(function, cases, background, players)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.scores, atol=1e-9)
    assert found.method == "exact"
    assert found.errors.max() == 0
    assert found.seed is None
    assert found.evaluations.tolist() == [games * (2 ** len(players) - 2)] * rows


@given(seed=st.integers(0, 1_000), features=st.integers(2, 9), games=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_drawn_values_add_up_and_repeat(seed, features, games):
    background, cases = background_of(features, games, seed), rows_of(features, 4, seed + 1)
    options = ExplainOptions(method="sampled", evaluations=3_000, seed=seed)
    scores = TorchScores(net(features, seed=seed))
    found = PlayerExplainer(scores, background, options=options).explain(cases)
    again = PlayerExplainer(scores, background, options=options).explain(cases)
    np.testing.assert_array_equal(found.values, again.values)
    assert found.gap < 1e-9
    assert found.seed == seed
    assert found.background_sha256 == background.sha256


def test_drawn_values_are_near_the_exact_ones_within_their_bars():
    background, cases = background_of(10, 20), rows_of(10, 20)
    scores = TorchScores(net(10))
    exact = PlayerExplainer(scores, background).explain(cases)
    drawn = PlayerExplainer(scores, background, options=SAMPLED).explain(cases)
    miss = np.abs(drawn.values - exact.values)
    assert (miss <= 2 * drawn.errors + 1e-7).mean() > 0.93
    assert np.linalg.norm(miss) < 0.05 * np.linalg.norm(exact.values)


def test_beyond_fourteen_players_coalitions_are_drawn_until_reasons_are_told_apart():
    background = background_of(20, 4)

    def steep(rows):
        product = rows[:, 0] * rows[:, 1] * rows[:, 2]
        return rows @ np.arange(20.0) + 30 * product

    cases = rows_of(20, 12)
    few = ExplainOptions(evaluations=400)
    many = ExplainOptions(evaluations=50_000)
    first = PlayerExplainer(steep, background, options=few).explain(cases)
    more = PlayerExplainer(steep, background, options=many).explain(cases)
    assert first.method == "sampled"
    assert set(first.evaluations) == {400}
    assert len(set(more.evaluations)) > 1
    assert more.ties[:, 3].sum() < first.ties[:, 3].sum()
    told_apart = ~more.ties[:, 3]
    assert told_apart[more.evaluations < 25_600].all()


def test_the_split_layer_changes_nothing_but_the_cost():
    names = tuple(f"f{i}" for i in range(6))
    players = Players(names, ("x", "y", "z"), (2, 0, 1, 1, 0, 2))
    background, cases = background_of(6), rows_of(6)
    module = net(6)
    split = PlayerExplainer(TorchScores(module), background, players).explain(cases)
    whole = PlayerExplainer(TorchScores(nn.Sequential(module).eval()), background, players)
    assert split_linear.splits(module)
    assert isinstance(whole._worth, MixedRows)
    np.testing.assert_allclose(split.values, whole.explain(cases).values, atol=1e-6)


def test_rows_alone_and_in_batches_are_explained_alike():
    background, cases = background_of(9, 7), rows_of(9, 6)
    for options in (ExplainOptions(), SAMPLED, replace(SAMPLED, memory_bytes=20_000)):
        explainer = PlayerExplainer(TorchScores(net(9)), background, options=options)
        together = explainer.explain(cases)
        for place in range(len(cases)):
            alone = explainer.explain(cases[place : place + 1])
            np.testing.assert_allclose(alone.values[0], together.values[place], atol=1e-6)


def test_kept_mixtures_stay_within_the_memory_allowed():
    background, cases = background_of(9, 7), rows_of(9, 6)
    for room, kept in ((1, 0), (2**20, 1)):
        options = replace(SAMPLED, memory_bytes=room)
        explainer = PlayerExplainer(TorchScores(net(9)), background, options=options)
        explainer.explain(cases)
        held = [mixtures for parts in explainer._kept.values() for _, mixtures in parts]
        assert bool(held) == bool(kept)
        assert sum(m.before.nbytes + m.came.nbytes for m in held) <= room


@pytest.mark.parametrize("width", [2, 3_000])
def test_layers_of_any_width_are_split(monkeypatch, width):
    monkeypatch.setattr(split_linear, "HIDDEN_BYTES", 2**12)
    torch.manual_seed(0)
    layers = [nn.Linear(5, width), nn.ReLU(), nn.ReLU(), nn.Linear(width, 1, bias=False)]
    module = nn.Sequential(*layers).double().eval()
    background, cases = background_of(5), rows_of(5)
    found = PlayerExplainer(TorchScores(module), background).explain(cases)
    expected = by_definition(
        TorchScores(module), cases, background, Players.single(background.names)
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-9)


def test_split_values_take_owners_in_any_order():
    names = ("f0", "f1", "f2")
    swapped = Players(names, ("b", "c", "a"), (2, 0, 1))
    background, cases = background_of(3), rows_of(3)
    plain = PlayerExplainer(TorchScores(net(3)), background).explain(cases).values
    other = PlayerExplainer(TorchScores(net(3)), background, swapped).explain(cases).values
    np.testing.assert_allclose(other[:, [2, 0, 1]], plain, atol=1e-6)


def test_a_hook_on_a_layer_is_heeded():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    module[0].register_forward_hook(lambda layer, given, made: 2 * made)
    module[1].register_forward_hook(lambda layer, given, made: made + 1)
    assert not split_linear.splits(module)
    background, cases = background_of(3), rows_of(3)
    found = PlayerExplainer(TorchScores(module), background).explain(cases)
    expected = by_definition(
        TorchScores(module), cases, background, Players.single(background.names)
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@pytest.mark.parametrize("options", [ExplainOptions(), SAMPLED])
def test_constant_features_have_exactly_nothing(options):
    background = Background(("a", "b", "c"), np.array([[1, 2, 5], [0, 3, 5]], dtype=np.float32))
    cases = np.array([[3.0, 1.0, 5.0], [2.0, 7.0, 6.0]])
    found = PlayerExplainer(
        lambda rows: rows[:, 0] * rows[:, 1] + rows[:, 2] ** 2, background, options=options
    ).explain(cases)
    assert found.values[0, 2] == 0.0
    assert found.errors[0, 2] == 0.0
    assert found.values[1, 2] == pytest.approx(11.0)


@pytest.mark.parametrize("options", [ExplainOptions(), SAMPLED])
def test_one_background_row_and_none_to_explain(options):
    background = background_of(5, 1)
    explainer = PlayerExplainer(wavy, background, options=options)
    same = explainer.explain(background.values)
    assert (same.values == 0).all()
    assert explainer.explain(rows_of(5, 0)).values.shape == (0, 5)
    one = Players.grouped(background.names, {"all": background.names})
    whole = PlayerExplainer(wavy, background, one, options).explain(rows_of(5))
    np.testing.assert_allclose(whole.values[:, 0], whole.scores - whole.base)


def test_a_missing_input_is_a_value_like_others():
    background = Background(("a", "b"), np.array([[np.nan, 1.0]], dtype=np.float32))

    def tolerant(rows):
        return np.nan_to_num(rows, nan=9.0).sum(axis=1)

    found = PlayerExplainer(tolerant, background).explain(np.array([[2.0, np.nan], [np.nan, 1.0]]))
    np.testing.assert_allclose(found.values, [[-7.0, 8.0], [0.0, 0.0]])


def test_background_of_another_schema_is_refused():
    background = background_of(3)
    with pytest.raises(BackgroundError, match=r"without \['g'\], with \['f2'\] instead"):
        PlayerExplainer(wavy, background, Players.single(("f0", "f1", "g")))
    with pytest.raises(BackgroundError, match="another order"):
        PlayerExplainer(wavy, background, Players.single(("f1", "f0", "f2")))
    with pytest.raises(BackgroundError, match=r"rows of shape \(2, 4\) for 3 features"):
        PlayerExplainer(lambda rows: rows[:, 0], background).explain(np.zeros((2, 4)))


def test_a_score_that_is_not_finite_names_its_row():
    background = Background(("a", "b"), np.array([[4.0, 0.0]], dtype=np.float32))

    def root(rows):
        with np.errstate(invalid="ignore"):
            return np.sqrt(rows[:, 0] - rows[:, 1])

    explainer = PlayerExplainer(root, background)
    with pytest.raises(ScoreError, match=r"score of row 1 is nan \(1 of 2"):
        explainer.explain(np.array([[2.0, 1.0], [1.0, 2.0]]))
    with pytest.raises(ScoreError, match="score of a mixture with row 0"):
        explainer.explain(np.array([[9.0, 8.0]]))
    with pytest.raises(ScoreError, match="background row 0"):
        PlayerExplainer(lambda rows: np.full(len(rows), np.inf), background)
    layer = nn.Linear(2, 1)
    logarithm = nn.Sequential(layer, _Logarithm(), nn.Linear(1, 1)).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.bias.zero_()
    with pytest.raises(ScoreError, match="mixture with row 0"):
        PlayerExplainer(TorchScores(logarithm), background).explain(np.array([[9.0, 8.0]]))


class _Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(x)


class _AlwaysDropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x).sum(dim=1)


class _LooksAtTheBatch(nn.Module):
    def forward(self, x):
        return (x - x.mean(dim=0)).sum(dim=1)


@pytest.mark.parametrize("module", [_AlwaysDropping(), _LooksAtTheBatch()])
def test_a_model_without_a_score_of_its_own_for_a_row_is_refused(module):
    explainer = PlayerExplainer(TorchScores(module.eval()), background_of(4))
    with pytest.raises(UnstableScoreError, match=r"call \.eval\(\)"):
        explainer.explain(rows_of(4))


def test_training_mode_is_refused():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1))
    with pytest.raises(UnstableScoreError, match=r"call \.eval\(\)"):
        TorchScores(module)
    module.eval()[1].train()
    with pytest.raises(UnstableScoreError, match="training mode"):
        TorchScores(module)


def test_a_model_that_changes_meanwhile_is_refused():
    calls = itertools.count()

    def drifting(rows):
        return rows[:, 0] + (next(calls) > 3)

    explainer = PlayerExplainer(drifting, background_of(2))
    with pytest.raises(UnstableScoreError, match="row 0 scored"):
        explainer.explain(rows_of(2))


def test_outputs_are_named():
    background, cases = background_of(3), rows_of(3)
    several = nn.Linear(3, 2).eval()
    with pytest.raises(ScoreError, match=r"TorchScores\(module, output=\.\.\.\)"):
        PlayerExplainer(TorchScores(several), background)
    with pytest.raises(ScoreError, match="output 2 is asked for"):
        PlayerExplainer(TorchScores(several, output=2), background)
    found = PlayerExplainer(TorchScores(several, output=1), background).explain(cases)
    weight = several.weight[1].detach().numpy()
    expected = (cases - background.values.mean(axis=0)) * weight
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    one = nn.Linear(3, 1).eval()
    flat = nn.Sequential(one, nn.Flatten(0)).eval()
    values = [
        PlayerExplainer(TorchScores(m), background).explain(cases).values for m in (one, flat)
    ]
    np.testing.assert_allclose(*values, atol=1e-6)
    with pytest.raises(ScoreError, match=r"shape \(6, 3\)"):
        PlayerExplainer(lambda rows: rows, background)


def test_five_thousand_features_are_refused_until_grouped():
    names = tuple(f"f{i}" for i in range(5_000))
    background = Background(names, np.zeros((50, 5_000), dtype=np.float32))
    with pytest.raises(PlayersError, match=r"5,000 players .* group features"):
        PlayerExplainer(lambda rows: rows.sum(axis=1), background)
    with pytest.raises(PlayersError, match="14 at most"):
        PlayerExplainer(
            lambda rows: rows.sum(axis=1), background, options=ExplainOptions(method="exact")
        )
    halves = Players.grouped(names, {"low": names[:2_500], "high": names[2_500:]})
    found = PlayerExplainer(lambda rows: rows.sum(axis=1), background, halves)
    values = found.explain(np.ones((1, 5_000))).values
    np.testing.assert_allclose(values, [[2_500.0, 2_500.0]])


@pytest.mark.parametrize("method", ["exact", "sampled"])
def test_time_that_is_over_is_said(method):
    def slow(rows):
        time.sleep(0.02)
        return rows.sum(axis=1)

    options = ExplainOptions(method=method, seconds=0.05, memory_bytes=200, evaluations=4_000)
    with pytest.raises(ExplanationTimeoutError, match="0 of 2 rows"):
        PlayerExplainer(slow, background_of(8), options=options).explain(rows_of(8, 2))


def test_every_error_is_one_kind():
    for error in (BackgroundError, PlayersError, ScoreError, UnstableScoreError):
        assert issubclass(error, ExplanationError)


def test_shap_plots_take_what_is_found():
    shap = pytest.importorskip("shap")
    names = ("a", "b", "c")
    players = Players.grouped(names, {"bc": ["b", "c"]})
    background, cases = Background(names, background_of(3).values.copy()), rows_of(3)
    found = PlayerExplainer(lambda rows: rows.sum(axis=1), background, players).explain(cases)
    made = found.to_shap()
    assert isinstance(made, shap.Explanation)
    assert made.feature_names == ["a", "bc"]
    np.testing.assert_allclose(made.base_values + made.values.sum(axis=1), found.scores)
    np.testing.assert_array_equal(made.data[:, 0], cases[:, 0])
    assert np.isnan(made.data[:, 1]).all()
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    shap.plots.waterfall(made[0], show=False)
    plt.close("all")
    shap.plots.bar(made, show=False)
    plt.close("all")


def test_equals_shap_where_it_counts_all_coalitions():
    shap = pytest.importorskip("shap")
    background, cases = background_of(5, 10), rows_of(5, 4)
    reference = shap.KernelExplainer(wavy, background.values.copy())
    found = PlayerExplainer(wavy, background).explain(cases)
    expected = reference.shap_values(cases, nsamples=2**5, silent=True)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_ties_are_declared():
    background = Background(("a", "b"), np.zeros((1, 2), dtype=np.float32))
    found = PlayerExplainer(lambda rows: rows.sum(axis=1), background).explain(
        np.array([[1.0, 1.0], [2.0, 1.0]])
    )
    assert found.ties[:, 0].tolist() == [True, False]
    assert found.order[1].tolist() == [0, 1]


def test_backgrounds_are_equal_by_digest():
    one, same, other = background_of(3), background_of(3), background_of(3, seed=4)
    assert one == same
    assert len({one, same, other}) == 2
    assert one != other
