"""Shapley values in matrices, judged by the definition over all coalitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.shapley.exact import MOST_PLAYERS, members_of, shapley_matrix
from kernels.shapley.paired import draw_pairs


def by_definition(worth, players):
    """Shapley's mean over orders of what a player adds on joining."""
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        coalition = 0
        for player in order:
            values[player] += worth[coalition | 1 << player] - worth[coalition]
            coalition |= 1 << player
    return values / math.factorial(players)


@given(players=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_matrix_gives_the_mean_over_orders(players, seed):
    worth = np.random.default_rng(seed).normal(size=2**players)
    values = shapley_matrix(players) @ worth
    np.testing.assert_allclose(values, by_definition(worth, players), atol=1e-12)
    assert values.sum() == pytest.approx(worth[-1] - worth[0], abs=1e-12)


@pytest.mark.parametrize("players", [0, MOST_PLAYERS + 1])
def test_the_matrix_refuses_too_few_and_too_many(players):
    with pytest.raises(ValueError, match=f"{players} players"):
        shapley_matrix(players)


def games_of(count, players, seed):
    """Values of all coalitions ``[count, 2^P]``: slopes, pairs and triples."""
    rng = np.random.default_rng(seed)
    inside = members_of(np.arange(2**players), players).astype(float)
    worth = inside @ rng.normal(size=(players, count))
    for size in (2, 3):
        for group in itertools.combinations(range(players), size):
            worth += inside[:, group].prod(axis=1)[:, None] * rng.normal(size=count) * 0.3
    return worth.T


def solved(pairs, worth):
    bits = 1 << np.arange(pairs.members.shape[2])
    coalition = (pairs.members * bits).sum(axis=2)
    games = np.arange(len(worth))[:, None]
    differences = worth[games, coalition] - worth[games, worth.shape[1] - 1 - coalition]
    return pairs.solve(differences[None], (worth[:, -1] - worth[:, 0])[None])


@given(
    players=st.integers(2, 8),
    games=st.integers(1, 4),
    extra=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_drawn_values_always_add_up_and_repeat(players, games, extra, seed):
    worth = games_of(games, players, seed)
    pairs = draw_pairs(games, players + extra, players, (seed,))
    values, errors = solved(pairs, worth)
    assert values.sum() == pytest.approx((worth[:, -1] - worth[:, 0]).mean(), abs=1e-9)
    assert (errors >= 0).all()
    again = draw_pairs(games, players + extra, players, (seed,))
    np.testing.assert_array_equal(again.members, pairs.members)
    held = pairs.members.sum(axis=2)
    assert (held >= 1).all()
    assert (2 * held <= players).all()


@given(players=st.integers(2, 8), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_games_of_pairs_alone_are_exact(players, seed):
    """A coalition and its complement cancel interactions of even order."""
    rng = np.random.default_rng(seed)
    inside = members_of(np.arange(2**players), players).astype(float)
    bonds = rng.normal(size=(players, players))
    worth = (np.einsum("cp,pq,cq->c", inside, bonds, inside))[None]
    values, errors = solved(draw_pairs(1, 12 * players, players, (seed,)), worth)
    np.testing.assert_allclose(values[0], shapley_matrix(players) @ worth[0], atol=1e-8)
    assert errors.max() < 1e-8


def test_error_bars_cover_the_exact_values():
    players, games = 8, 20
    found = []
    for seed in range(40):
        worth = games_of(games, players, seed)
        values, errors = solved(draw_pairs(games, 24, players, (seed,)), worth)
        found.append((values[0] - shapley_matrix(players) @ worth.mean(axis=0)) / errors[0])
    spread = np.concatenate(found)
    assert 0.4 < spread.std() < 1.1
    assert (np.abs(spread) < 2).mean() > 0.93


def test_more_pairs_leave_less_error():
    players, games = 10, 10
    worth = games_of(games, players, 3)
    exact = shapley_matrix(players) @ worth.mean(axis=0)
    misses = []
    for count in (25, 400):
        drawn = [solved(draw_pairs(games, count, players, (s,)), worth)[0][0] for s in range(10)]
        misses.append(np.sqrt(np.mean((np.array(drawn) - exact) ** 2)))
    assert misses[1] < misses[0] / 3
    joined = draw_pairs(games, 25, players, (0,)).joined(draw_pairs(games, 30, players, (1,)))
    assert joined.members.shape == (games, 55, players)
    assert joined.weights.shape == (games, 55)
