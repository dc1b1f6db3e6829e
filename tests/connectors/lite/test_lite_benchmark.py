"""The benchmark of penstock-lite at its small size: an int8 detector, an empty environment."""

from __future__ import annotations

import json

import pytest

from infra.errors import PenstockError
from tests.benchmarks import lite


@pytest.mark.long
def test_benchmark_runs_small(capsys):
    try:
        lite.main(["--smoke", "--json"])
    except PenstockError as error:
        pytest.skip(str(error))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "lite"
    assert result["flips"] == 0
    assert result["images"] == 12
    assert 0 < result["rss_mb"] < 2048
    assert 0 < result["ms_min"] <= result["ms_p50"] <= result["ms_p95"]
    assert 0 < result["load_ms"] < result["cold_start_ms"]
    assert result["verdict"] in {"OK", "NG", "REVIEW"}
