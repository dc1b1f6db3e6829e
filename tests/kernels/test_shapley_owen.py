"""Coalitions of other unions: all of them with Owen's weights, or drawn without bias."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels.shapley.owen import outer_coalitions


def test_all_coalitions_have_the_weights_of_the_definition():
    found = outer_coalitions(4, 16, (0,))
    assert not found.drawn
    assert len(np.unique(found.members, axis=0)) == 16
    for members, weight in zip(found.members, found.weights, strict=True):
        size = int(members.sum())
        expected = math.factorial(size) * math.factorial(4 - size) / math.factorial(5)
        assert weight == pytest.approx(expected)
    assert found.weights.sum() == pytest.approx(1)
    mean, error = found.mean(found.members.astype(float))
    np.testing.assert_allclose(mean, 0.5)
    assert error.tolist() == [0.0] * 4
    alone = outer_coalitions(0, 4, (0,))
    assert alone.members.shape == (1, 0)
    assert alone.weights.tolist() == [1.0]


def test_drawn_coalitions_are_pairs_of_all_sizes_and_near_the_truth():
    every = outer_coalitions(10, 1_024, (0,))
    some = outer_coalitions(10, 200, (0,))
    assert some.drawn
    np.testing.assert_array_equal(some.members[:100], ~some.members[100:])
    sizes = np.bincount(some.members.sum(axis=1), minlength=11)
    assert sizes.min() >= 16
    again = outer_coalitions(10, 200, (0,))
    np.testing.assert_array_equal(some.members, again.members)
    assert (outer_coalitions(10, 200, (1,)).members != some.members).any()

    def worth(members):
        return np.stack([members[:, 0] & members[:, 1] & members[:, 2], members[:, 3]], axis=1)

    truth, _ = every.mean(worth(every.members).astype(float))
    misses = []
    for seed in range(40):
        one = outer_coalitions(10, 200, (seed,))
        mean, error = one.mean(worth(one.members).astype(float))
        assert mean[1] == pytest.approx(0.5)
        misses.append((mean[0] - truth[0]) / error[0])
    assert truth[0] == pytest.approx(0.25)
    assert np.abs(np.mean(misses)) < 0.5
    assert 0.4 < np.std(misses) < 1.4


def test_too_few_coalitions_are_refused():
    with pytest.raises(ValueError, match="allow 4 or more"):
        outer_coalitions(10, 3, (0,))
