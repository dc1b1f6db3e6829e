"""Speed constraints: kept, by the least change there is, and once is enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from tasks.cleaning.sensors.speed import minimum_change, screen, too_fast


@st.composite
def series(draw, longest=40):
    n = draw(st.integers(1, longest))
    steps = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    values = draw(st.lists(st.integers(-300, 300), min_size=n, max_size=n))
    rate = draw(st.sampled_from([0.1, 0.7, 1.0, 25.0]))
    return np.cumsum(steps).astype(float), np.array(values) / 10.0, rate


def least_by_linear_programming(times, values, rate):
    n, one = len(values), np.eye(len(values))
    step, bound = np.diff(one, axis=0), rate * np.diff(times)
    none = np.zeros_like(step)
    rows = [[one, -one], [-one, -one], [step, none], [-step, none]]
    return linprog(
        np.r_[np.zeros(n), np.ones(n)],
        A_ub=np.block(rows),
        b_ub=np.r_[values, -values, bound, bound],
        bounds=[(None, None)] * n + [(0, None)] * n,
    ).fun


@settings(deadline=None, max_examples=150)
@given(series())
def test_repaired_readings_keep_the_speed_and_stay_as_they_are(given_series):
    times, values, rate = given_series
    made = minimum_change(times, values, rate)
    assert not too_fast(times, made, rate).any()
    assert np.array_equal(minimum_change(times, made, rate), made)


@settings(deadline=None, max_examples=60)
@given(series(12))
def test_no_repair_moves_less(given_series):
    times, values, rate = given_series
    moved = np.abs(minimum_change(times, values, rate) - values).sum()
    assert moved == pytest.approx(least_by_linear_programming(times, values, rate), abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(series())
def test_the_streaming_repair_keeps_the_speed_and_moves_no_less(given_series):
    times, values, rate = given_series
    made = screen(times, values, rate, window=5.0)
    assert not too_fast(times, made, rate).any()
    least = np.abs(minimum_change(times, values, rate) - values).sum()
    assert np.abs(made - values).sum() >= least - 1e-6


def test_only_stretches_around_what_is_too_fast_are_touched():
    rng = np.random.default_rng(3)
    values = np.cumsum(rng.uniform(-0.9, 0.9, 20_000))
    values[[500, 9_000, 9_001]] += 50.0
    times = np.arange(20_000.0)
    made = minimum_change(times, values, 1.0)
    near = np.zeros(len(values), bool)
    for at in (500, 9_000):
        near[at - 60 : at + 60] = True
    assert np.array_equal(made[~near], values[~near])
    assert not too_fast(times, made, 1.0).any()


@pytest.mark.parametrize(
    ("times", "values", "rate", "told"),
    [
        ([0, 1], [1, 2], 0.0, "rate is 0.0; give the fastest change"),
        ([1, 0], [1, 2], 1.0, "times that never fall"),
        ([0, 1], [1, np.nan], 1.0, "readings that are all numbers"),
        ([0, 1, 2], [1, 2], 1.0, "3 times and 2 readings"),
    ],
)
def test_what_is_no_series_is_refused(times, values, rate, told):
    for way in (minimum_change, lambda *given: screen(*given, window=2.0)):
        with pytest.raises(ValueError, match=told):
            way(np.array(times, float), np.array(values, float), rate)
