"""The entity-state benchmark prints its keys, and the engine beats pandas in the same run."""

from __future__ import annotations

import json

from tests.benchmarks import entity_state


def test_smoke(capsys):
    entity_state.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "entity-state"
    assert result["max_abs_diff"] <= 1e-9
    assert result["rows_per_core_s"] > result["pandas_rows_per_core_s"]
    assert result["rows_per_core_s"] > result["reference_rows_per_s"]


def test_table_for_people(capsys):
    entity_state.main(["--smoke", "--rows", "500"])
    out = capsys.readouterr().out
    assert "rows_per_core_s" in out
    assert "compiled engine" in out
