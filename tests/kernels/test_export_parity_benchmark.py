"""The benchmark export-parity at its small size: its keys, and that nothing flips."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import export_parity


@pytest.mark.long
def test_every_format_of_the_smoke_decides_alike(capsys):
    export_parity.main(["--smoke", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["formats"] == ["onnx", "openvino", "torch-export"]
    assert told["flips_fp32"] == 0
    assert told["decisions_fp32"] == 3 * 36
    assert told["flips_int8"] is not None
    assert 0 <= told["max_rel"] < 1e-5
