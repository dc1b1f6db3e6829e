"""The graph benchmark prints its keys, and what it times has PyG's gradients."""

from __future__ import annotations

import json

import pytest


@pytest.mark.long
def test_smoke(capsys):
    # Here, so that not everyone who collects the tests waits for PyTorch Geometric.
    from tests.benchmarks import gnn_kernels

    gnn_kernels.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "gnn-kernels"
    assert result["grad_err"] <= 1e-12
    assert result["grad_err_float32"] <= 1e-5
    assert result["peak_bytes_ratio"] < 1
    assert result["real_train_diff"] <= 1e-4
    ratios = {"sage_x_eager", "sage_x_csr", "gat_x_eager", "gatv2_x_eager", "real_train_x"}
    assert all(result[key] > 0 for key in {*ratios, "sampler_medges_per_core_s"})
