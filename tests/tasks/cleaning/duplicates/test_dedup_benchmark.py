"""The benchmark prints its keys; on the real sets it reaches its targets where they are at hand."""

from __future__ import annotations

import json

from tests.benchmarks import dedup


def run(capsys, *arguments):
    dedup.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_smoke(capsys):
    result = run(capsys, "--smoke")
    for name in ("febrl4", "fake1000", "historical"):
        assert result[f"{name}_f1"] >= 0.95
        assert result[f"{name}_f1_low"] <= result[f"{name}_f1"] <= result[f"{name}_f1_high"]
        assert result[f"{name}_p"] >= 0.99
        assert result.get(f"{name}_harm_most", 0) <= 1
        assert result[f"{name}_seconds"] > 0
    assert len(result["promises"]) == 2 * len(dedup.PROMISES)
    assert result["fake1000_inferred_f1"] >= 0.9
