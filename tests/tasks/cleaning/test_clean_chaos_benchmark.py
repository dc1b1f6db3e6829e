"""The clean-chaos benchmark prints its keys; at its small size nothing is lost or crashes."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import clean_chaos


@pytest.mark.long
def test_smoke(capsys):
    clean_chaos.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "clean-chaos"
    assert result["kills"] >= 3
    assert result["known_counts"] >= 40
    assert result["hostile_files"] >= 60
    for key in ("rows_lost", "rows_doubled", "torn", "crashes", "wrong_counts",
                "hostile_rows_lost", "hostile_rows_doubled"):  # fmt: skip
        assert result[key] == 0, result["faults"]
    assert result["ours_clean_csv_rows_cpu_s"] > 0
