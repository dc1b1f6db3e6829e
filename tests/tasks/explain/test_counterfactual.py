"""Counterfactuals: nearest by brute force, verified by the model, silent where none exists."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.explain.counterfactual import SearchConfig, nearest_change
from tasks.explain.errors import ExplanationError, ScoreError
from tasks.explain.players import Players

NAMES = ("a", "b", "c", "d")
PLAYERS = Players.grouped(NAMES, {"cd": ["c", "d"]})


def score(rows):
    return rows[:, 0] + 0.5 * rows[:, 1] + rows[:, 2] * rows[:, 3]


def brute(row, known, contributions, below):
    """Every subset of raising players, every donor; fewest players, then least distance."""
    low, high = np.quantile(known.astype(float), [0.25, 0.75], axis=0)
    spread = high - low
    donors = [r for r in known if score(r[None])[0] < below]
    owner = np.array(PLAYERS.owner)
    raising = [p for p in range(3) if contributions[p] > 0]
    for size in range(1, 4):
        best = None
        for chosen in combinations(raising, size):
            for donor in donors:
                changed = np.where(np.isin(owner, chosen), donor, row)
                length = (np.abs(changed.astype(float) - row) / spread).sum()
                if length > 0 and score(changed[None])[0] < below:
                    best = min(best or np.inf, length)
        if best is not None:
            return size, best
    return None


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_no_change_of_fewer_players_or_less_distance_exists(seed):
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(30, 4)).astype(np.float32)
    row = (rng.normal(size=4) * 2 + 1).astype(np.float32)
    below = 0.3
    assume(score(row[None])[0] >= below)
    contributions = rng.normal(size=3) + 0.5
    found = nearest_change(score, row, contributions, known, PLAYERS, below)
    truth = brute(row, known, contributions, below)
    if truth is None:
        assert found is None
        return
    assert (len(found.players), found.distance) == (truth[0], pytest.approx(truth[1]))
    changed = row.copy()
    for change in found.changes:
        assert changed[NAMES.index(change.feature)] == np.float32(change.before)
        changed[NAMES.index(change.feature)] = change.after
        assert change.player in found.players
    assert score(changed[None])[0] == pytest.approx(found.score)
    assert found.score < below


def test_features_of_one_player_come_from_one_known_row():
    known = np.array([[5, 5, 0, 9], [5, 5, 1, 1], [9, 9, 9, 0.1]], np.float32) - [5, 5, 0, 0]
    row = np.array([0, 0, 4, 4], np.float32)
    found = nearest_change(score, row, np.array([-1.0, -1, 3]), known.astype(np.float32),
                           PLAYERS, 2.0)  # fmt: skip
    assert found.players == ("cd",)
    pair = {c.feature: c.after for c in found.changes}
    assert any(np.allclose((pair.get("c", 4), pair.get("d", 4)), k[2:]) for k in known)


def test_players_that_nobody_can_change_and_directions_are_kept():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(50, 4)).astype(np.float32)
    row = np.array([3, 3, 0, 0], np.float32)
    high = np.array([3.0, 2.0, 0.1])
    free = nearest_change(score, row, high, known, PLAYERS, 2.0)
    assert free.players == ("a",)
    fixed = nearest_change(
        score, row, high, known, PLAYERS, 2.0, SearchConfig(fixed=frozenset("a"))
    )
    assert fixed is None or "a" not in fixed.players
    rises = SearchConfig(directions={"a": 1})
    found = nearest_change(score, row, high, known, PLAYERS, 2.0, rises)
    assert found is None or all(c.after >= c.before for c in found.changes if c.feature == "a")


def test_where_nothing_leads_there_none_is_given():
    known = np.zeros((5, 4), np.float32)
    row = np.array([1, 0, 0, 0], np.float32)
    assert nearest_change(score, row, np.array([1.0, 0, 0]), known, PLAYERS, -5.0) is None
    lowering = np.array([-1.0, -1, -1])
    assert nearest_change(score, row, lowering, known, PLAYERS, 0.5) is None


def test_a_missing_value_is_a_value():
    def likes_missing(rows):
        return np.where(np.isnan(rows[:, 0]), 0.0, 1.0)

    known = np.array([[np.nan, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]], np.float32)
    found = nearest_change(likes_missing, np.array([5, 0, 0, 0], np.float32),
                           np.array([1.0, 0, 0]), known, PLAYERS, 0.5)  # fmt: skip
    assert np.isnan(found.changes[0].after)
    assert found.distance == 1.0  # one spread, however large the feature's numbers are


def test_to_go_missing_is_no_cheaper_for_a_feature_of_large_numbers():
    """A value two hundredths of a spread away is nearer than none at all."""

    def amount(rows):
        return np.nan_to_num(rows[:, 0]) / 1000

    known = np.zeros((101, 4), np.float32)
    known[:, 0] = np.arange(0, 1010, 10)
    known[0, 0] = np.nan
    found = nearest_change(amount, np.array([600, 0, 0, 0], np.float32), np.array([1.0, 0, 0]),
                           known, PLAYERS, 0.595)  # fmt: skip
    assert found.changes[0].after == 590
    low, high = np.quantile(np.arange(10, 1010, 10), [0.25, 0.75])
    assert found.distance == pytest.approx(10 / (high - low))


def test_a_feature_that_no_known_row_has_is_no_hindrance():
    known = np.zeros((5, 4), np.float32)
    known[:, 1] = np.nan
    row = np.array([3, np.nan, 0, 0], np.float32)
    found = nearest_change(lambda r: r[:, 0], row, np.array([1.0, 0, 0]), known, PLAYERS, 1.0)
    assert found.players == ("a",)


def test_a_direction_on_a_missing_feature_forbids_its_own_change_alone():
    known = np.array([[0, 0, 0, 0], [0, 5, 0, 0]], np.float32)
    row = np.array([3, np.nan, 0, 0], np.float32)
    search = SearchConfig(directions={"b": 1})

    def first(rows):
        return rows[:, 0]

    found = nearest_change(first, row, np.array([1.0, 0.5, 0]), known, PLAYERS, 1.0, search)
    assert [c.feature for c in found.changes] == ["a"]

    def gone(rows):
        return np.isnan(rows[:, 1]).astype(float)

    high = np.array([0.0, 1.0, 0])
    assert nearest_change(gone, row, high, known, PLAYERS, 0.5) is not None
    assert nearest_change(gone, row, high, known, PLAYERS, 0.5, search) is None

    def present(rows):
        return 1 - gone(rows)

    known[1, 1] = np.nan
    row[1] = 2
    assert nearest_change(present, row, high, known, PLAYERS, 0.5) is not None
    for way in (1, -1):
        search = SearchConfig(directions={"b": way})
        assert nearest_change(present, row, high, known, PLAYERS, 0.5, search) is None


def test_wrong_use_is_refused():
    row, known = np.ones(4, np.float32), np.zeros((3, 4), np.float32)
    with pytest.raises(ExplanationError, match="already"):
        nearest_change(score, row * 0, np.ones(3), known, PLAYERS, 0.5)
    with pytest.raises(ExplanationError, match="no feature"):
        nearest_change(score, row, np.ones(3), known, PLAYERS, 0.5,
                       SearchConfig(directions={"z": 1}))  # fmt: skip
    with pytest.raises(ExplanationError, match="fixed names 'c', which is no player"):
        nearest_change(score, row, np.ones(3), known, PLAYERS, 0.5,
                       SearchConfig(fixed=frozenset({"c", "a"})))  # fmt: skip
    with pytest.raises(ExplanationError, match="only rises"):
        SearchConfig(directions={"a": 2})
    with pytest.raises(ExplanationError, match="at least 1"):
        SearchConfig(donors=0)
    with pytest.raises(ScoreError, match="known row"):
        nearest_change(lambda r: np.where(r[:, 0] == 0, np.nan, 1.0), row, np.ones(3), known,
                       PLAYERS, 0.5)  # fmt: skip
