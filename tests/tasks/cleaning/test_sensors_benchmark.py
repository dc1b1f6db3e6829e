"""The benchmark of sensors prints its keys and beats the usual filters at a small size, too."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.benchmarks import _sensor_series, clean_sensors


def test_smoke(capsys):
    clean_sensors.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "clean-sensors"
    for fault in _sensor_series.FAULTS:
        assert result[f"{fault}_f1"] > 0.6
    usual = min(result[f"{way}_rmse"] for way in ("screen", "median", "hampel", "z"))
    assert result["engine_rmse"] < usual < result["dirty_rmse"]
    assert result["worst_harm"] <= 0.01


@pytest.mark.parametrize("kind", _sensor_series.KINDS)
def test_faults_lie_apart_and_the_rest_is_the_truth(kind):
    one = _sensor_series.made_up(kind, 3)
    assert all(one.wrong[fault].any() for fault in _sensor_series.FAULTS)
    assert np.sum([one.wrong[fault] for fault in _sensor_series.FAULTS], axis=0).max() == 1
    seen = one.frame["value"].cast(float).to_numpy()
    # What drifts by less than a quarter of a step is not counted as wrong.
    off = np.abs(seen - one.truth)[one.clean]
    assert off.max() <= 0.26 * one.noise + 0.5 * (kind == "coarse")
