"""The benchmark of reasons runs at its smallest size and says what it promises."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import reasons


def figures(capsys, *options):
    reasons.main(["--smoke", "--json", *options])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_stability(capsys):
    found = figures(capsys, "--part", "stability", "--seeds", "2", "--background", "64")
    assert found["seeds"] == len(found["rows"]) == 2
    assert found["background_rows"] == 64
    for key in ("stability_top4", "stability_top4_exact"):
        assert 0 < found[f"{key}_worst"] <= found[key] <= 1
    assert found["stability_top4_exact"] <= found["stability_top4"]
    assert 0 <= found["ties_declared"] <= 1
    for row in found["rows"]:
        assert row["honest_flips"] <= min(row["flips"], row["ties"])
        assert max(row["flips"], row["ties"]) <= row["neighbours"]


@pytest.mark.long
def test_latency(capsys, tmp_path):
    found = figures(capsys, "--part", "latency", "--models", str(tmp_path))
    assert found["errors"] == 0
    assert found["with_reasons_off"] == 0.0 < found["with_reasons_on"]
    assert found["api_added_ms_p99"] == pytest.approx(found["p99_on_ms"] - found["p99_off_ms"])
