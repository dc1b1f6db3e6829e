"""Players: every feature has one, and names tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.explain.errors import PlayersError
from tasks.explain.players import Players


def test_groups_stand_where_their_first_feature_stands():
    players = Players.grouped(["a", "b", "c", "d"], {"bd": ["b", "d"]})
    assert players.names == ("a", "bd", "c")
    assert players.owner == (0, 1, 2, 1)
    assert len(players) == 3
    assert hash(players) == hash(Players.grouped(["a", "b", "c", "d"], {"bd": ["d", "b"]}))
    flags = np.array([[True, True, False, False], [False, True, False, True]])
    assert players.all_within(flags).tolist() == [[True, False, False], [False, True, False]]


def test_a_group_may_bear_the_name_of_a_member():
    assert Players.grouped(["a", "b"], {"a": ["a", "b"]}).names == ("a",)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"x": ["a", "z"]}, "'z', which is no feature"),
        ({"x": ["a"], "y": ["b", "a"]}, "'a' is in the groups 'x' and 'y'"),
        ({"c": ["a", "b"]}, "'c' is a group and a feature"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, words):
    with pytest.raises(PlayersError, match=words):
        Players.grouped(["a", "b", "c"], groups)


def test_features_and_players_must_match():
    with pytest.raises(PlayersError, match="feature 'a' occurs twice"):
        Players.single(["a", "a"])
    with pytest.raises(PlayersError, match="each player a feature"):
        Players(("a", "b"), ("x", "y"), (0, 0))
    with pytest.raises(PlayersError, match="1 owners for 2 features"):
        Players(("a", "b"), ("x",), (0,))
