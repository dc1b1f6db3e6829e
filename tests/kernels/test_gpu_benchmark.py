"""The GPU's benchmark: the same code at a small size on the CPU, and an honest end without one."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from tests.benchmarks import gpu


@pytest.mark.long
def test_smoke_appends_its_figures(tmp_path, capsys):
    assert gpu.main(["--smoke", "--json", "--csv", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["fp8_x_bf16"] is None) == (result["device"] == "cpu")
    assert min(result[key] for key in ("amp_bf16_x_fp32", "sage_x_eager", "sage_x_csr")) > 0
    (path,) = tmp_path.glob("gpu-*.csv")
    gpu.append(path, result)
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert len(lines) == 2
    assert float(lines[0]["sage_x_eager"]) == pytest.approx(result["sage_x_eager"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys):
    assert gpu.main([]) == gpu.NO_DEVICE
    assert "no CUDA device here" in capsys.readouterr().out
