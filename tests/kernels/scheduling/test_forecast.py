"""Forecasts of load against the last value, on data they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.scheduling.directions import directions
from kernels.scheduling.forecast import ForecastConfig, LoadForecast, held_out_ratios
from kernels.scheduling.series import Series

CONFIG = ForecastConfig(ahead_seconds=50.0)  # five readings


def made(values):
    values = np.asarray(values, np.float64)
    return Series(tuple(f"s{i}" for i in range(values.shape[1])), 10.0, values)


def error_ratio(values, cut):
    """Root of the mean squared error over that of the last value, after the cut."""
    forecast = LoadForecast(made(values[:cut]), CONFIG)
    steps, actual = forecast.steps, values[cut + forecast.steps :]
    ours = forecast.after(values)[cut:-steps] - actual
    last = values[cut:-steps] - actual
    return np.sqrt((ours**2).mean() / (last**2).mean()), forecast


def noisy(rng, count, keep):
    shocks = rng.normal(size=(count, 4))
    values = np.zeros_like(shocks)
    for i in range(1, count):
        values[i] = keep * values[i - 1] + shocks[i]
    return values


def test_series_that_swing_back_are_foretold_better_than_by_their_last_value():
    ratios = [error_ratio(noisy(np.random.default_rng(s), 600, 0.7), 300)[0] for s in range(10)]
    assert max(ratios) < 0.9
    assert np.mean(ratios) < 0.8


def test_series_that_wander_keep_about_their_last_value():
    ratios = [error_ratio(noisy(np.random.default_rng(s), 600, 1.0), 300)[0] for s in range(10)]
    assert np.mean(ratios) < 1.15


def test_a_constant_is_foretold_exactly_and_a_swing_by_its_past():
    time = np.arange(400)
    wave = np.sin(2 * np.pi * time / 40)
    values = np.column_stack([np.full(400, 3.0), wave])
    forecast = LoadForecast(made(values[:200]), CONFIG)
    found = forecast.after(values)[200:]
    np.testing.assert_allclose(found[:, 0], 3.0, rtol=1e-12)
    assert forecast.way("s1") == "linear"
    late = np.abs(found[:-5, 1] - wave[205:])
    assert late.max() < 0.15 < np.abs(wave[200:-5] - wave[205:]).max()
    named = forecast.next(values)
    assert set(named) == {"s0", "s1"}
    assert named["s1"] == found[-1, 1]


def test_the_forecast_uses_nothing_from_the_future():
    values = noisy(np.random.default_rng(0), 300, 0.7)
    forecast = LoadForecast(made(values[:200]), CONFIG)
    whole, part = forecast.after(values[200:]), forecast.after(values[200:250])
    np.testing.assert_allclose(whole[:50], part, rtol=1e-12, atol=1e-12)


def test_a_recording_is_judged_on_its_last_quarter():
    values = np.column_stack([noisy(np.random.default_rng(2), 400, 0.7), np.ones(400)])
    found = held_out_ratios(made(values), CONFIG)
    assert set(found) == {"s0", "s1", "s2", "s3"}  # the constant does not move
    ratio, _ = error_ratio(values[:, :4], 300)
    assert min(found.values()) < ratio < max(found.values())
    assert held_out_ratios(made(values[:40]), CONFIG) == {}


def test_every_series_moves_in_its_own_unit():
    small = 1e-4 * noisy(np.random.default_rng(2), 400, 0.7)[:, :1]
    bytes_ = np.full((400, 1), 1e12)
    alone = held_out_ratios(made(small), CONFIG)
    # Two columns are added up in another order than one.
    both = held_out_ratios(made(np.column_stack([small, bytes_])), CONFIG)
    assert both == pytest.approx(alone, rel=1e-12)
    assert set(alone) == {"s0"}


def test_as_many_readings_as_are_asked_for_are_enough():
    values = noisy(np.random.default_rng(3), 68, 0.7)
    assert LoadForecast(made(values[:51]), CONFIG).after(values[:51]).shape == (51, 4)
    assert len(held_out_ratios(made(values), CONFIG)) == 4
    assert held_out_ratios(made(values[:67]), CONFIG) == {}


def test_too_few_readings_and_wrong_settings_are_told():
    with pytest.raises(ValueError, match=r"51 readings are needed.*record 8.5 minutes"):
        LoadForecast(made(np.zeros((20, 1))), CONFIG)
    with pytest.raises(ValueError, match="ahead_seconds"):
        ForecastConfig(ahead_seconds=0)
    with pytest.raises(ValueError, match="must be finite"):
        made([[np.nan]])


def test_directions_name_what_moves_together():
    rng = np.random.default_rng(1)
    busy, disk = rng.normal(size=(2, 400))
    values = np.column_stack(
        [busy, 100 * busy, -busy, disk, np.full(400, 7.0), rng.normal(size=400)]
    )
    values = values + 0.05 * rng.normal(size=values.shape) * values.std(0)
    first, *others = directions(made(values), count=3, names=3)
    assert set(first.names) == {"s0", "s1", "s2"}
    assert first.share == pytest.approx(0.6, abs=0.02)
    assert np.abs(first.loads).min() > 0.99
    assert all("s4" not in each.names for each in others)
    assert directions(made(np.ones((10, 2)))) == ()
