"""The benchmarks of the engine by players run at their smallest size and say what they promise."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import shap_history, shap_modules, shap_tabular


def figures(capsys, benchmark):
    benchmark.main(["--smoke", "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.long
def test_tabular(capsys):
    found = figures(capsys, shap_tabular)
    assert found.keys() >= {
        *("ms_per_row", "rel_l2", "top4_same_order", "additivity_max", "exact_ms"),
        *("shap_permutation_ms", "shap_permutation_l2", "shap_deep_l2"),
        *("champion_ms_per_row", "champion_rel_l2", "champion_top4_same_order"),
        *("champion_grouped_rel_l2", "champion_shap_permutation_l2"),
        *("fast_rows_s", "fast_rel_l2", "fast_fallback", "fast_build_s"),
    }
    assert found["rel_l2"] < 0.05
    assert found["additivity_max"] <= 1e-6
    assert found["exact_max_diff"] < 1e-5
    assert found["fast_rel_l2"] < 0.9
    assert found["champion_rel_l2"] < 0.1
    assert found["champion_grouped_rel_l2"] < 0.1
    assert found["fast_additivity_max"] <= 1e-6


def test_modules(capsys):
    found = figures(capsys, shap_modules)
    assert found["kinds"] == 12
    assert found["explained"] == 12
    assert found["silent_errors"] == 0
    assert found["worst_gap"] < 1e-5 < found["deep_worst_gap"]
    assert found["deep_errors"] >= 3


@pytest.mark.long
def test_history(capsys):
    found = figures(capsys, shap_history)
    assert found.keys() >= {
        *("ms_per_row", "kept_length", "pruning_loss", "last_event_share", "additivity_max"),
        *("shap_permutation_ms", "shap_permutation_l2"),
    }
    assert 0 < found["kept_length"] < 1
    assert found["pruning_loss"] < 0.1
    assert 0 < found["last_event_share"] < 1
    assert found["additivity_max"] <= 1e-6
