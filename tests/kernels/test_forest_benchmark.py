"""The forest benchmark prints its keys, and what it times is LightGBM's own to the last digits."""

from __future__ import annotations

import json

from tests.benchmarks import forest


def test_smoke(capsys):
    forest.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "forest"
    assert result["max_score_diff"] <= 1e-9
    assert result["max_contrib_diff"] <= 1e-9
    keys = {"score_us_per_row", "contributions_us_per_row", "single_row_us", "ort_us_per_row",
            "ort_single_row_us", "lightgbm_us_per_row", "lightgbm_contrib_us_per_row",
            *forest.RATIOS}  # fmt: skip
    assert all(result[key] > 0 for key in keys)
    assert result["score_wall_us_per_row"] > 0
