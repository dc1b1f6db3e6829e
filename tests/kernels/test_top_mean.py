"""Shapley values of a mean of the highest, against the definition over all coalitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.shapley.exact import members_of, shapley_matrix
from kernels.shapley.top_mean import top_mean, top_mean_values

LEVELS = st.floats(-5, 5) | st.integers(-2, 2).map(float)
"""Whole ones tie, with each other and with the base."""


@settings(max_examples=200, deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=8), st.integers(1, 10), LEVELS)
def test_equals_the_definition(levels, count, base):
    levels = np.array(levels)
    members = members_of(np.arange(2 ** len(levels)), len(levels))
    worth = [top_mean(np.where(inside, levels, base), count) for inside in members]
    expected = shapley_matrix(len(levels)) @ np.array(worth)
    np.testing.assert_allclose(top_mean_values(levels, count, base), expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 5_000), st.integers(0, 2**31))
def test_adds_up_and_keeps_the_order_of_many(count, cells, seed):
    levels = np.random.default_rng(seed).normal(size=cells)
    values = top_mean_values(levels, count, 0.0)
    assert values.sum() == pytest.approx(top_mean(levels, count), abs=1e-9)
    assert (np.diff(values[np.argsort(levels)]) >= -1e-12).all()


def test_a_cell_at_the_base_gets_nothing_and_equal_cells_get_the_same():
    values = top_mean_values(np.array([2.0, 0.0, 2.0]), 1, 0.0)
    assert values.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("levels", "count", "base"),
    [([], 1, 0.0), ([[1.0]], 1, 0.0), ([1.0], 0, 0.0), ([np.nan], 1, 0.0), ([1.0], 1, np.inf)],
)
def test_wrong_input_is_named(levels, count, base):
    with pytest.raises(ValueError, match=r"give one level per cell|not finite"):
        top_mean_values(np.array(levels, dtype=float), count, base)
