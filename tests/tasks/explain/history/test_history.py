"""Histories: exact by the definition, pruned within a tolerance, views that agree, errors named."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tasks.explain.engine import ExplainOptions
from tasks.explain.errors import (
    ExplanationTimeoutError,
    HistoryError,
    PlayersError,
    ScoreError,
    UnstableScoreError,
)
from tasks.explain.history.background import HistoryBackground
from tasks.explain.history.cells import CellOptions, explain_cells
from tasks.explain.history.explainer import HistoryExplainer, HistoryOptions
from tasks.explain.history.scores import TorchHistories

WHOLE = HistoryOptions(tolerance=None)


class Recurrent(nn.Module):
    """Scores the last state of a GRU or LSTM; takes histories that end at the last step."""

    def __init__(self, kind, features):
        super().__init__()
        self.layer = kind(features, 8, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.layer(x)[0][:, -1])


class Packed(nn.Module):
    """A GRU over histories padded at their end, by their lengths."""

    def __init__(self, features):
        super().__init__()
        self.layer = nn.GRU(features, 8, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x, there):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, there.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        return self.last(self.layer(packed)[1][0])[:, 0]


class Attending(nn.Module):
    """A transformer layer with a mask, positions, and the mean over what is there."""

    def __init__(self, features, steps):
        super().__init__()
        self.enter = nn.Linear(features, 8)
        self.place = nn.Parameter(torch.randn(steps, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x, there):
        made = self.layer(self.enter(x) + self.place, src_key_padding_mask=~there)
        kept = made * there[..., None]
        return self.last(kept.sum(dim=1) / there.sum(dim=1, keepdim=True))


def model(kind, features, steps, seed=0):
    torch.manual_seed(seed)
    if kind == "transformer":
        module, takes_mask = Attending(features, steps), True
    elif kind == "packed":
        module, takes_mask = Packed(features), True
    else:
        module, takes_mask = Recurrent({"gru": nn.GRU, "lstm": nn.LSTM}[kind], features), False
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    return TorchHistories(module.double().eval(), takes_mask=takes_mask)


def drawn(count, steps, features, seed=0, lengths=None, at_end=False):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, steps, features)).astype(np.float32)
    mask = np.ones((count, steps), dtype=bool)
    for row, length in enumerate(lengths or []):
        mask[row] = np.arange(steps) < length if at_end else np.arange(steps) >= steps - length
    return np.where(mask[..., None], values, np.float32(0)), mask


def names_of(features):
    return tuple(f"f{i}" for i in range(features))


def worth(score, history, there, others, inside):
    """Mean score when the cells ``inside`` [T, F] are the history's own, by plain loops."""
    events = np.flatnonzero(there)
    mixed = np.zeros((len(others), *history.shape), dtype=history.dtype)
    for made, other in zip(mixed, others, strict=True):
        for back, place in enumerate(events[::-1]):
            for feature in range(history.shape[1]):
                own = inside[place, feature]
                made[place, feature] = (history if own else other)[
                    place if own else len(other) - 1 - back, feature
                ]
    return float(np.mean(score(mixed, np.tile(there, (len(others), 1)))))


def by_definition(value, count):
    """Shapley values of a game ``value(members)`` of a few players."""
    subsets = [
        frozenset(some)
        for size in range(count + 1)
        for some in itertools.combinations(range(count), size)
    ]
    known = {inside: value(inside) for inside in subsets}
    found = np.zeros(count)
    for player in range(count):
        for inside in subsets:
            if player not in inside:
                share = math.factorial(len(inside)) * math.factorial(count - len(inside) - 1)
                gain = known[inside | {player}] - known[inside]
                found[player] += share / math.factorial(count) * gain
    return found


@pytest.mark.parametrize("kind", ["gru", "lstm", "packed", "transformer"])
@pytest.mark.parametrize("average", [True, False])
def test_events_and_features_are_those_of_the_definition(kind, average):
    steps, features = 4, 3
    at_end = kind in {"packed", "transformer"}
    histories, mask = drawn(3, steps, features, lengths=[4, 2, 1], at_end=at_end)
    make = HistoryBackground.average if average else HistoryBackground.sequences
    background = make(names_of(features), *drawn(3, steps, features, 9, [4, 3, 4]))
    score = model(kind, features, steps)
    explainer = HistoryExplainer(score, background, options=WHOLE)
    checked = explainer.prune(histories, mask)
    events, by_feature = explainer.events(checked), explainer.features(checked)
    for row in range(3):
        places = np.flatnonzero(mask[row])[::-1]

        def event_game(inside, row=row, places=places):
            own = np.isin(np.arange(steps), places[list(inside)])[:, None]
            cells = np.broadcast_to(own, (steps, features))
            return worth(score, histories[row], mask[row], background.values, cells)

        def feature_game(inside, row=row):
            own = np.isin(np.arange(features), list(inside))
            cells = np.broadcast_to(own, (steps, features))
            return worth(score, histories[row], mask[row], background.values, cells)

        expected = by_definition(event_game, len(places))
        np.testing.assert_allclose(events.values[row, : len(places)], expected, atol=1e-9)
        assert (events.values[row, len(places) :] == 0).all()
        expected = by_definition(feature_game, features)
        np.testing.assert_allclose(by_feature.values[row, :-1], expected, atol=1e-9)
        assert events.base[row] == pytest.approx(event_game(set()))
        assert events.scores[row] == pytest.approx(score(histories, mask)[row])
    assert events.players == ("event[0]", "event[-1]", "event[-2]", "event[-3]", "older events")
    assert max(events.gap, by_feature.gap) < 1e-9


def test_cells_are_owen_values_and_add_up_to_their_event():
    steps, features = 3, 3
    histories, mask = drawn(2, steps, features)
    background = HistoryBackground.sequences(names_of(features), *drawn(2, steps, features, 9))
    score = model("gru", features, steps)
    explainer = HistoryExplainer(score, background, options=WHOLE)
    checked = explainer.prune(histories)
    events, by_feature = explainer.events(checked), explainer.features(checked)
    cells = explain_cells(explainer, checked, events, by_feature, CellOptions(3, 2))
    for row in range(2):
        first = [*cells.feature[row]]
        groups = [[first[0]], [first[1]], [f for f in range(features) if f not in first]]
        for rank, event in enumerate(cells.event[row]):
            others = [steps - 1 - other for other in range(steps) if other != event]

            def part(inside, row=row, groups=groups, event=event, others=others):
                """What a part of an event is worth among the other events (Owen 1977)."""
                total = 0.0
                for size in range(len(others) + 1):
                    share = math.factorial(size) * math.factorial(len(others) - size)
                    for there in itertools.combinations(others, size):
                        without = np.zeros((steps, features), dtype=bool)
                        without[list(there)] = True
                        joined = without.copy()
                        columns = [feature for group in inside for feature in groups[group]]
                        joined[steps - 1 - event, columns] = True
                        gain, before = (
                            worth(score, histories[row], mask[row], background.values, each)
                            for each in (joined, without)
                        )
                        total += share / math.factorial(len(others) + 1) * (gain - before)
                return total

            expected = by_definition(part, 3)
            np.testing.assert_allclose(cells.values[row, rank], expected, atol=1e-9)
            assert cells.values[row, rank].sum() == pytest.approx(
                events.values[row, event], abs=1e-12
            )
    assert cells.errors.max() == 0


@given(
    kind=st.sampled_from(["gru", "transformer"]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 500),
    tolerance=st.sampled_from([None, 0.0, 0.02, 0.2, 9.0]),
    games=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None)
def test_views_agree_in_their_sums_and_pruning_keeps_its_word(
    kind, lengths, seed, tolerance, games
):
    steps, features = 9, 3
    histories, mask = drawn(len(lengths), steps, features, seed, lengths)
    background = HistoryBackground.sequences(names_of(3), *drawn(games, steps, 3, seed + 1))
    score = model(kind, features, steps, seed)
    explainer = HistoryExplainer(score, background, options=HistoryOptions(tolerance))
    checked = explainer.prune(histories, mask)
    events, by_feature = explainer.events(checked), explainer.features(checked)
    cells = explain_cells(explainer, checked, events, by_feature, CellOptions(2, 1))
    target = events.scores - events.base
    np.testing.assert_allclose(events.values.sum(axis=1), target, atol=1e-9)
    np.testing.assert_allclose(by_feature.values.sum(axis=1), target, atol=1e-9)
    np.testing.assert_array_equal(events.scores, by_feature.scores)
    for row in range(len(lengths)):
        for rank, event in enumerate(cells.event[row]):
            expected = events.values[row, event] if event >= 0 else 0.0
            assert cells.values[row, rank].sum() == pytest.approx(expected, abs=1e-9)
    assert ((checked.player >= 0) == mask).all()
    assert (np.abs(checked.older) <= (tolerance or 0.0)).all()
    assert (checked.kept[~checked.lumped] == 1).all()
    if tolerance is None:
        assert not checked.lumped.any()
    if tolerance == 9.0:
        assert checked.lumped.tolist() == [length > 2 for length in lengths]


def test_two_old_events_that_cancel_are_not_hidden():
    def score(histories, mask):
        return histories[:, 0, 0] - histories[:, 1, 0] + histories[:, -1, 0]

    background = HistoryBackground(("a",), np.zeros((1, 6, 1), dtype=np.float32))
    explainer = HistoryExplainer(score, background, options=HistoryOptions(0.1))
    checked = explainer.prune(np.ones((1, 6, 1)))
    # All but the newest are worth 1 - 1 = 0 together, but the oldest is worth 1.
    assert not checked.lumped[0]
    found = explainer.events(checked).values
    np.testing.assert_allclose(found, [[1, 0, 0, 0, -1, 1, 0]], atol=1e-12)
    calm = explainer.prune(np.array([[[0], [0], [3.0], [0], [2.0], [1.0]]]))
    assert calm.lumped[0]
    assert calm.player[0].tolist() == [1, 1, 1, 1, 1, 0]
    assert calm.kept[0] == pytest.approx(1 / 6)
    found = explainer.events(calm)
    assert found.values.tolist() == [[1, 0]]
    assert found.row(0).players == ("event[0]", "older events")


def test_sessions_and_feature_groups_are_players():
    def score(histories, mask):
        return histories[:, :, 0].sum(axis=1) * histories[:, :, 1].sum(axis=1)

    names = ("a", "b", "c")
    background = HistoryBackground(names, np.zeros((1, 4, 3), dtype=np.float32))
    explainer = HistoryExplainer(score, background, {"ab": ["a", "b"]}, WHOLE)
    histories = np.ones((1, 4, 3))
    checked = explainer.prune(histories, sessions=np.array([[7, 7, 9, 9]]))
    assert checked.players.tolist() == [2]
    np.testing.assert_allclose(explainer.events(checked).values, [[8, 8, 0]])
    found = explainer.features(checked)
    assert found.players == ("ab", "c", "older events")
    assert found.values.tolist() == [[16, 0, 0]]
    assert found.present.tolist() == [[True, True, False]]


def test_beyond_fourteen_events_values_have_bars_and_repeat():
    histories, _ = drawn(2, 24, 2)
    background = HistoryBackground.average(names_of(2), histories)
    options = HistoryOptions(None, ExplainOptions(evaluations=3_000, seed=3))
    explainer = HistoryExplainer(model("gru", 2, 24), background, options=options)
    checked = explainer.prune(histories)
    found, again = explainer.events(checked), explainer.events(checked)
    by_feature = explainer.features(checked)
    np.testing.assert_array_equal(found.values, again.values)
    assert found.drawn.all()
    assert not by_feature.drawn.any()
    assert (found.errors[:, :-1] > 0).all()
    assert (found.row(0).method, found.row(0).seed) == ("sampled", 3)
    assert found.gap < 1e-9
    cells = [
        explain_cells(explainer, checked, found, by_feature, CellOptions(2, 1, coalitions))
        for coalitions in (16, 16, 1_024)
    ]
    np.testing.assert_array_equal(cells[0].values, cells[1].values)
    few, many = cells[0], cells[2]
    assert few.errors.max() > many.errors.max() > 0
    assert (np.abs(few.values - many.values) <= 4 * np.hypot(few.errors, many.errors)).all()
    for row in range(2):
        np.testing.assert_allclose(
            few.values[row].sum(axis=1), found.values[row, few.event[row]], atol=1e-12
        )


def test_backgrounds_are_frozen_filled_and_known_by_digest():
    histories, mask = drawn(2, 4, 2, lengths=[4, 2])
    background = HistoryBackground.sequences(("a", "id"), histories, mask, ids=["id"])
    events = histories[mask]
    np.testing.assert_array_equal(background.values[1, 2:], histories[1, 2:])
    filled = np.tile(background.values[1, 0], (2, 1))
    np.testing.assert_array_equal(background.values[1, :2], filled)
    assert filled[0, 0] == pytest.approx(events[:, 0].mean(), abs=1e-6)
    assert filled[0, 1] in events[:, 1]
    again = HistoryBackground(background.names, background.values.copy(), background.sha256)
    assert again.sha256 == background.sha256
    with pytest.raises(HistoryError, match="does not match its sha256"):
        HistoryBackground(("a", "b"), background.values.copy(), background.sha256)
    with pytest.raises(ValueError, match="read-only"):
        background.values[0, 0, 0] = 1.0
    held = background.values.copy()
    part = HistoryBackground(("a", "id"), held[:1])
    held[0, 0, 0] += 1.0
    np.testing.assert_array_equal(part.values, background.values[:1])
    with pytest.raises(HistoryError, match=r"shape \(2, 4, 2\) for 1 features"):
        HistoryBackground(("a",), histories.copy())
    with pytest.raises(HistoryError, match=r"ids name \['b'\]"):
        HistoryBackground.average(("a", "id"), histories, mask, ids=["b"])
    with pytest.raises(HistoryError, match="empty"):
        HistoryBackground(("a", "b"), histories[:0].copy())
    with pytest.raises(HistoryError, match="empty"):
        HistoryBackground.average(("a", "b"), histories[:0])


def test_an_event_embedding_is_compared_by_its_most_frequent_id():
    class Coded(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.last = nn.Embedding(4, 3), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(torch.cat([self.code(x[..., 0].long()), x[..., 1:]], 2)).mean(dim=1)

    torch.manual_seed(0)
    histories = np.random.default_rng(0).integers(0, 4, (5, 3, 2)).astype(np.float32)
    background = HistoryBackground.average(("code", "amount"), histories, ids=["code"])
    assert background.values[0, 0, 0] == int(background.values[0, 0, 0])
    explainer = HistoryExplainer(TorchHistories(Coded().eval()), background)
    same = histories.copy()
    same[:, :, 0] = background.values[0, 0, 0]
    found = explainer.features(explainer.prune(same))
    assert (found.values[:, 0] == 0).all()
    assert np.abs(found.values[:, 1]).min() > 0


def simple(steps=4, features=2, options=WHOLE, score=None):
    background = HistoryBackground(
        names_of(features), np.zeros((1, steps, features), dtype=np.float32)
    )
    total = score or (lambda histories, mask: histories.sum(axis=(1, 2)))
    return HistoryExplainer(total, background, options=options)


def test_histories_that_cannot_be_explained_are_refused():
    explainer = simple()
    good = np.ones((2, 4, 2))
    mask = np.ones((2, 4), dtype=bool)
    with pytest.raises(HistoryError, match=r"\(2, 5, 2\) for a background of 4 events"):
        explainer.prune(np.ones((2, 5, 2)))
    with pytest.raises(HistoryError, match=r"pass \[n, T, F\]"):
        explainer.prune(np.ones((2, 8)))
    gap = good.copy()
    gap[1, 2, 0] = np.nan
    with pytest.raises(HistoryError, match="history 1 has nan at event 2, feature 0"):
        explainer.prune(gap)
    none = mask.copy()
    none[1] = False
    with pytest.raises(HistoryError, match="history 1 has no event"):
        explainer.prune(good, none)
    none[1, 2:] = True
    with pytest.raises(HistoryError, match="set padding to 0"):
        explainer.prune(good, none)
    with pytest.raises(HistoryError, match=r"mask of int64 \(2, 4\)"):
        explainer.prune(good, mask.astype(int))
    with pytest.raises(HistoryError, match="sessions of shape"):
        explainer.prune(good, sessions=np.zeros((2, 3), dtype=int))
    with pytest.raises(HistoryError, match="tolerance must be 0 or more"):
        HistoryOptions(float("nan"))
    with pytest.raises(HistoryError, match="1 to 13 features"):
        CellOptions(features=14)
    one = explainer.prune(good[:1])
    events, features = explainer.events(one), explainer.features(one)
    with pytest.raises(HistoryError, match="1 and 1 explained histories for 2"):
        explain_cells(explainer, explainer.prune(good), events, features)
    with pytest.raises(PlayersError, match="no feature of the model"):
        HistoryExplainer(explainer._function, explainer.background, {"g": ["x"]})


def test_models_that_cannot_be_explained_are_refused():
    with pytest.raises(UnstableScoreError, match=r"call \.eval\(\)"):
        TorchHistories(Recurrent(nn.GRU, 2))

    def not_a_number(histories, mask):
        return np.where(histories.max(axis=(1, 2)) > 0, np.nan, 0.0)

    with pytest.raises(ScoreError, match="score of history 0 is nan"):
        simple(options=HistoryOptions(1.0), score=not_a_number).prune(np.ones((1, 4, 2)))
    rng = np.random.default_rng(0)
    noisy = simple(score=lambda h, m: rng.normal(size=len(h)))
    with pytest.raises(UnstableScoreError):
        noisy.events(noisy.prune(np.ones((1, 4, 2))))

    def slow(histories, mask):
        time.sleep(0.03)
        return histories.sum(axis=(1, 2))

    late = simple(options=HistoryOptions(None, ExplainOptions(seconds=0.05)), score=slow)
    with pytest.raises(ExplanationTimeoutError, match="0 of 2 rows"):
        late.events(late.prune(np.ones((2, 4, 2))))
    many = HistoryOptions(None, ExplainOptions(evaluations=50))
    crowd = simple(40, options=many)
    with pytest.raises(PlayersError, match="40 players"):
        crowd.events(crowd.prune(np.ones((1, 40, 2))))


def test_no_histories_and_float64_and_views_of_arrays():
    explainer = simple()
    none = explainer.prune(np.ones((0, 4, 2)))
    assert explainer.events(none).values.shape == (0, 2)
    assert explainer.features(none).values.shape == (0, 3)
    wide = np.random.default_rng(0).normal(size=(3, 8, 4))
    sliced = wide[:, ::2, ::-2]
    found = explainer.events(explainer.prune(sliced)).values
    again = explainer.events(explainer.prune(np.ascontiguousarray(sliced))).values
    np.testing.assert_array_equal(found, again)
    np.testing.assert_allclose(found[:, :4], sliced.sum(axis=2)[:, ::-1], atol=1e-6)


def test_drawn_values_do_not_depend_on_the_batch():
    lengths = [20, 18, 20, 3]
    histories, mask = drawn(4, 20, 2, lengths=lengths)
    sessions = np.arange(20) // np.array([[1], [1], [1], [2]])
    background = HistoryBackground.sequences(names_of(2), *drawn(2, 20, 2, 5))
    options = HistoryOptions(None, ExplainOptions(evaluations=1_000))
    explainer = HistoryExplainer(model("gru", 2, 20), background, options=options)
    together = explainer.events(explainer.prune(histories, mask, sessions))
    assert together.drawn.tolist() == [True, True, True, False]
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = explainer.events(explainer.prune(histories[one], mask[one], sessions[one]))
        assert alone.row(0).players == together.row(row).players
        np.testing.assert_allclose(alone.row(0).values, together.row(row).values, atol=1e-9)
        assert alone.scores[0] == pytest.approx(together.scores[row])
        assert len(alone.row(0).players) == (length if row < 3 else 2)


def test_padding_counts_as_memory():
    calls = []

    def score(histories, mask):
        calls.append(histories.nbytes)
        return histories[:, -1, 0] + histories[:, -2].sum(axis=1)

    rng = np.random.default_rng(0)
    background = HistoryBackground(("a", "b"), rng.normal(size=(3, 64, 2)).astype(np.float32))
    values, mask = np.zeros((2, 64, 2)), np.zeros((2, 64), dtype=bool)
    mask[:, -8:] = True
    values[mask] = rng.normal(size=(16, 2))
    options = HistoryOptions(0.0, ExplainOptions(memory_bytes=2**16))
    explainer = HistoryExplainer(score, background, options=options)
    explainer.events(explainer.prune(values, mask))
    assert max(calls) <= 2**16
