"""The benchmark of tuning prints its keys, and its clock and rule are what it says."""

from __future__ import annotations

import json
from itertools import repeat

import numpy as np
import pytest

from tests.benchmarks import autotune
from tests.benchmarks._autotune_problem import GRID, SPACE, make_problem
from tests.benchmarks._autotune_race import FullTrials, bootstrap_ratio


@pytest.mark.long
def test_smoke(capsys):
    autotune.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for rival in ("random", "grid", "shuffled_grid"):
        low, high = result[f"time_to_target_ratio_{rival}_interval"]
        assert 0 < low <= result[f"time_to_target_ratio_{rival}"] <= high
    assert result["time_to_target_ratio"]["grid"] == result["time_to_target_ratio_grid"]
    for rival in ("constant", "cosine"):
        low, high = result[f"pbt_error_ratio_{rival}_interval"]
        assert 0 < low <= result[f"pbt_error_ratio_{rival}"] <= high
    assert 0 < result["target"] < 1
    assert 0 < result["asking_share"] < 1
    steps = result["steps"]
    assert all(s < (autotune.CAP * 4 + 1) * 27 for each in steps.values() for s in each)


def test_a_trial_is_trained_once_and_stops_at_the_target():
    problem = make_problem(7, steps=12, every=3)
    parameters = SPACE.grid(GRID)[-1] | {"learning_rate": 0.01, "weight_decay": 0.01}
    never = FullTrials(problem, target=0.0)
    race = never.race(repeat(parameters, 3))
    assert (race.trials, race.steps, race.reached) == (3, 36, False)
    assert race.cpu == pytest.approx(3 * never.race([parameters]).cpu)
    at_once = FullTrials(problem, target=100.0).race(repeat(parameters, 3))
    assert (at_once.trials, at_once.steps, at_once.reached) == (1, 3, True)


def test_the_interval_holds_the_ratio_of_the_means():
    generator = np.random.default_rng(0)
    a, b = generator.exponential(1.0, 50), generator.exponential(4.0, 50)
    ratio, low, high = bootstrap_ratio(a, b, seed=1)
    assert ratio == pytest.approx(a.mean() / b.mean())
    assert low < ratio < high
    assert 0.1 < low < 0.25 < high < 0.5
