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
    for kind in ("", "trained_"):
        assert 0 <= found[f"{kind}ties_declared"] <= 1
        for row in found["rows"]:
            honest, flips, ties = (row[kind + key] for key in ("honest_flips", "flips", "ties"))
            assert honest <= min(flips, ties)
            assert max(flips, ties) <= row[f"{kind}neighbours"]
    assert 0 < found["trained_stability_top4"] <= 1


@pytest.mark.long
def test_latency(capsys, tmp_path):
    found = figures(capsys, "--part", "latency", "--models", str(tmp_path))
    assert found["errors"] == 0
    assert found["with_reasons_off"] == 0.0 < found["with_reasons_on"]
    assert found["api_added_ms_p99"] == pytest.approx(found["p99_on_ms"] - found["p99_off_ms"])
