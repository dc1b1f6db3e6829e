"""The engine under inputs and models that are odd: scales, repeats, layouts, sizes, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kernels.shapley.paired import draw_pairs
from tasks.explain.background import Background
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import (
    BackgroundError,
    OptionsError,
    PlayersError,
    ScoreError,
    UnstableScoreError,
)
from tasks.explain.scores import TorchScores

SAMPLED = ExplainOptions(method="sampled", evaluations=4_000)
BOTH = pytest.mark.parametrize("options", [None, SAMPLED], ids=["exact", "sampled"])


def drawn(rows, features, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32)


def background_of(features, rows=6):
    return Background(tuple(f"f{i}" for i in range(features)), drawn(rows, features))


def net(features, *more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 1), *more).eval()


@BOTH
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_values_follow_the_scale_of_the_score(scale, options):
    def wavy(rows):
        return np.sin(rows).sum(axis=1) * rows[:, 0].astype(np.float64)

    background, cases = background_of(6), drawn(3, 6, 1)
    plain = PlayerExplainer(wavy, background, options=options).explain(cases)
    scaled = PlayerExplainer(lambda rows: scale * wavy(rows), background, options=options).explain(
        cases
    )
    np.testing.assert_allclose(scaled.values / scale, plain.values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled.errors / scale, plain.errors, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(scaled.order, plain.order)


@BOTH
def test_a_large_offset_costs_no_more_than_its_own_digits(options):
    background, cases = background_of(6), drawn(3, 6, 1)
    found = PlayerExplainer(
        lambda rows: 1e8 + rows.astype(np.float64).sum(axis=1), background, options=options
    ).explain(cases)
    expected = cases - background.values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@BOTH
def test_a_background_row_given_many_times_is_one(options):
    background, cases = background_of(6, 1), drawn(3, 6, 1)
    scores = TorchScores(net(6).double())
    once = PlayerExplainer(scores, background).explain(cases)
    often = Background(background.names, np.repeat(background.values, 9, axis=0))
    many = PlayerExplainer(scores, often, options=options).explain(cases)
    miss = np.abs(many.values - once.values)
    assert (miss <= 4 * many.errors + 1e-12).all()
    same = PlayerExplainer(scores, often, options=options).explain(background.values)
    assert (same.values == 0).all()


@BOTH
def test_constant_scores_give_nothing_and_all_players_tie(options):
    background = background_of(6)
    for score in (0.0, 0.3):
        found = PlayerExplainer(
            lambda rows, score=score: np.full(len(rows), score), background, options=options
        ).explain(drawn(3, 6, 1))
        np.testing.assert_allclose(found.values, 0, atol=1e-15)
        assert found.ties.all()


def test_players_of_one_part_tie_whatever_rounding_says():
    def twins(rows):
        return np.tanh(0.1 * rows[:, 0] + 0.1 * rows[:, 1]) * rows[:, 2] + 3 * rows[:, 3]

    values = drawn(7, 4)
    values[:, 1] = values[:, 0]
    background = Background(("a", "b", "c", "d"), values)
    cases = np.array([[0.7, 0.7, 1.1, 2.0]])
    found = PlayerExplainer(twins, background).explain(cases)
    places = found.order[0].tolist()
    first = min(places.index(0), places.index(1))
    assert abs(places.index(0) - places.index(1)) == 1
    assert found.ties[0].tolist() == [place == first for place in range(3)]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.astype(np.float64),
        lambda rows: rows.astype(">f4"),
        np.asfortranarray,
        lambda rows: rows[::-1, ::-1].copy()[::-1, ::-1],
        lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    ],
    ids=["float64", "byte order", "Fortran", "negative strides", "strides"],
)
@pytest.mark.parametrize("module", [net(6), nn.Sequential(net(6)).eval()], ids=["split", "whole"])
def test_the_layout_of_an_array_changes_nothing(change, module):
    background, cases = background_of(6), drawn(4, 6, 1)
    explainer = PlayerExplainer(TorchScores(module), background)
    other = PlayerExplainer(
        TorchScores(module), Background(background.names, change(background.values))
    )
    expected = explainer.explain(cases).values
    np.testing.assert_array_equal(explainer.explain(change(cases)).values, expected)
    np.testing.assert_array_equal(other.explain(cases).values, expected)
    assert other.background == background


def test_infinite_inputs_are_told_as_scores():
    cases = drawn(2, 6, 1)
    cases[1, 2] = np.inf
    with pytest.raises(ScoreError, match="score of row 1"):
        PlayerExplainer(TorchScores(net(6)), background_of(6)).explain(cases)


@BOTH
def test_sampling_noise_is_refused(options):
    rng = np.random.default_rng(0)
    explainer = PlayerExplainer(
        lambda rows: rows.sum(axis=1) + 1e-3 * rng.normal(size=len(rows)),
        background_of(6),
        options=options,
    )
    with pytest.raises(UnstableScoreError, match="draws random numbers"):
        explainer.explain(drawn(3, 6, 1))


def test_more_than_a_thousand_players_are_not_drawn_for():
    names = tuple(f"f{i}" for i in range(5_000))
    background = Background(names, np.zeros((1, 5_000), dtype=np.float32))
    with pytest.raises(PlayersError, match=r"5,000 players .* \(1,000 at most\): group features"):
        PlayerExplainer(lambda rows: rows.sum(axis=1), background)
    some = Background(names[:600], background.values[:, :600])
    found = PlayerExplainer(lambda rows: rows.sum(axis=1), some, options=SAMPLED)
    values = found.explain(np.ones((1, 600))).values
    np.testing.assert_allclose(values, 1.0, atol=1e-9)


def test_pairs_of_many_players_are_drawn_without_a_matrix_of_them():
    """At 5,000 players a matrix of float64 is 200 MB, and each pair would pass over it twice."""
    import tracemalloc

    tracemalloc.start()
    try:
        pairs = draw_pairs(1, 20, 5_000, (0,))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pairs.members.shape == (1, 20, 5_000)
    assert peak < 5_000**2


@BOTH
@pytest.mark.parametrize("same", [0.1, 1.764e12, 16_777_217.0], ids=["rate", "epoch ms", "id"])
def test_a_feature_that_is_the_same_everywhere_has_nothing_whatever_float32_holds(same, options):
    def score(rows):
        return (rows[:, 0] <= same) + (rows[:, 0].astype(np.float64) - same) + rows[:, 1]

    background = Background(("same", "x", "y"), np.array([[same, 0.0, 0.0], [same, 1.0, 2.0]]))
    found = PlayerExplainer(score, background, options=options).explain(
        np.array([[same, 1.0, 1.0]])
    )
    np.testing.assert_allclose(found.values, [[0.0, 0.5, 0.0]], atol=1e-6)
    assert found.values[0, 0] == 0.0
    assert found.data[0, 0] == same


def test_values_beyond_float32_name_their_feature_and_the_remedy():
    with pytest.raises(BackgroundError, match=r"'b' of background row 1 is 1e\+39.*larger unit"):
        Background(("a", "b"), np.array([[0.0, 1.0], [0.0, 1e39]]))
    explainer = PlayerExplainer(lambda rows: rows[:, 0], background_of(2))
    with pytest.raises(BackgroundError, match=r"'f1' of row 1 is -1e\+39"):
        explainer.explain(np.array([[0.0, 0.0], [0.0, -1e39]]))


def test_names_may_be_a_list():
    background = Background(["a", "b"], np.zeros((1, 2)))
    assert background == Background(("a", "b"), np.zeros((1, 2)))
    found = PlayerExplainer(lambda rows: rows[:, 0], background).explain(np.ones((1, 2)))
    assert found.players == ("a", "b")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"method": "exakt"}, "'exakt'; choose one of auto, exact, sampled"),
        ({"top": 0}, "top 0.*at least 1"),
        ({"evaluations": 0}, "at least 1"),
        ({"memory_bytes": -1}, "memory_bytes -1: give at least 1"),
        ({"seed": -1}, "give 0 or more"),
        ({"seconds": float("nan")}, "None for any time"),
    ],
)
def test_wrong_options_are_named(wrong, word):
    with pytest.raises(OptionsError, match=word):
        ExplainOptions(**wrong)


@pytest.mark.parametrize("output", [-1, -5])
def test_outputs_are_counted_from_the_first(output):
    with pytest.raises(ScoreError, match=f"output {output} is asked for; count"):
        TorchScores(nn.Linear(3, 3).eval(), output=output)


class _Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(x)


@BOTH
@pytest.mark.parametrize("split", [False, True])
def test_a_mixture_without_a_score_names_the_row_it_was_made_of(split, options):
    """Row 290 is in the second part; its own score is 2, only mixtures of it have none."""
    adds = nn.Linear(3, 1)
    with torch.no_grad():
        adds.weight.fill_(1.0)
        adds.bias.fill_(1.0)
    module = nn.Sequential(adds, _Root(), nn.Identity()).eval()
    scores = TorchScores(module) if split else TorchScores(module).__call__
    rows = np.ones((300, 3), dtype=np.float32)
    rows[290] = [5.0, -3.0, 1.0]
    background = Background(("a", "b", "c"), np.zeros((3, 3)))
    with pytest.raises(ScoreError, match=r"a mixture with row 290 is nan \(1 of"):
        PlayerExplainer(scores, background, options=options).explain(rows)


@pytest.mark.parametrize("method", ["exact", "sampled"])
def test_memory_is_bounded_for_many_rows_too(method):
    import tracemalloc

    memory = 2**20
    options = ExplainOptions(method=method, evaluations=4_000, memory_bytes=memory, top=9)
    explainer = PlayerExplainer(
        lambda rows: np.sin(rows).prod(axis=1), background_of(10, 20), options=options
    )
    cases = drawn(256, 10, 1)
    expected = explainer.explain(cases[:1]).values  # the draw is beside the memory
    tracemalloc.start()
    try:
        found = explainer.explain(cases)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found.values[:1], expected, atol=1e-12)
    assert peak < 4 * memory
