"""The benchmark of slices prints its keys, and small sizes show what large ones do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.benchmarks import _slice_tables, clean_slices


def test_smoke(capsys):
    clean_slices.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "clean-slices"
    assert result["many_rows_alarms"] == 0
    assert result["search_found_pair"] == 1
    assert {"gap_lightgbm_made_gain", "gap_lightgbm_copies_gain"} <= set(result)
    assert result["impute_mcar_coverage"] > 0.7
    assert result["false_alarms_table"] == 0


@pytest.mark.parametrize(("how", "low", "high"), [("mcar", 0.2, 0.2), ("mar", 0.05, 0.5)])
def test_cells_are_masked_as_said(how, low, high):
    frame, _ = _slice_tables.to_fill(4_000, 0, uneven=False)
    mask = _slice_tables.masked(frame, "income", how, np.random.default_rng(1), "age")
    old = frame["age"].cast(float).to_numpy() > frame["age"].cast(float).quantile(0.65)
    assert mask[~old].mean() == pytest.approx(low, abs=0.03)
    assert mask[old].mean() == pytest.approx(high, abs=0.04)


def test_without_data_nothing_is_real(tmp_path):
    assert _slice_tables.real_tables(tmp_path) == {}
