"""The benchmarks of compression run at their smallest size, and say what they promise to say."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import distil, lora, quantize


@pytest.mark.parametrize(
    ("benchmark", "keys"),
    [
        (distil, {"params_cut", "acc_teacher", "acc_student", "acc_scratch"}),
        (lora, {"trainable_share", "acc_full", "acc_lora", "merge_max_diff"}),
        (
            quantize,
            {
                "x_size",
                "x_ort_fp32",
                "x_torch_eager",
                "acc_loss_ptq",
                "acc_loss_qat",
                "int4_size_ratio",
                "int4_acc_loss",
            },
        ),
    ],
    ids=["distil", "lora", "quantize"],
)
def test_figures_are_there(benchmark, keys, capsys):
    benchmark.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() >= keys
    if "params_cut" in keys:
        assert result["params_cut"] >= 0.8
    elif benchmark is quantize:
        assert result["x_size"] > 1.5
        assert result["int4_size_ratio"] < 1 / result["x_size"]
        assert result["nets"].keys() == {"smoke"}
    else:
        assert result["trainable_share"] <= 0.05
        assert result["merge_max_diff"] <= 1e-6
        assert result["merge_max_diff_float64"] <= 1e-12
