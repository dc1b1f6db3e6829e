"""The benchmark prints its keys."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import mpc


@pytest.mark.long
def test_smoke(capsys):
    mpc.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "mpc"
    assert 0 < result["max_err"] <= result["proved_err"] <= 1e-5
    assert 0 < result["bytes_per_row"] < 250 < result["textbook_bytes_per_row"]
    assert result["rows_s_lan"] > 0
    assert result["psi_keys_s"] > 0
