"""The benchmarks of compression run at their smallest size, and say what they promise to say."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import adaptive, distil, lora, quantize, slimmable


def result(benchmark, capsys, *arguments):
    benchmark.main(["--smoke", "--json", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.long
def test_distil(capsys):
    found = result(distil, capsys, "--labelled-only")
    keys = {"acc_teacher", "acc_student", "acc_scratch", "gap_closed"}
    for student in (found, found["other_architecture"]):
        assert student.keys() >= keys
        assert student["params_cut"] >= 0.8
    assert "acc_labelled_only" in found["other_architecture"]


def test_lora(capsys):
    found = result(lora, capsys)
    for part in (found, found["text"]):
        assert part.keys() >= {"acc_before", "acc_full", "acc_lora", "loss_interval"}
        assert part["trainable_share"] <= 0.05
        assert part["merge_max_diff"] <= 2e-6
        assert part["merge_max_diff_float64"] <= 1e-12


@pytest.mark.long
def test_slimmable(capsys):
    found = result(slimmable, capsys)
    assert found["widths"] == 2
    assert 0 <= found["pareto_ahead"] <= 1
    costs = [each["multiplications"] for each in found["by_width"].values()]
    assert costs == sorted(costs)
    chosen = found["by_width"][f"{found['chosen_width']:g}"]
    assert chosen["ms"] <= found["budget_ms"]


@pytest.mark.long
def test_adaptive_shares_its_net_by_the_folder(capsys, tmp_path):
    found = result(adaptive, capsys, "--kept", str(tmp_path))
    assert [each.suffix for each in tmp_path.iterdir()] == [".safetensors"]
    assert found.keys() >= {"x_saved_compute", "disagreement", "promised"}
    for arm in ("cascade", "exits"):
        left = found["arms"][arm]["0.3"]["left"]
        assert sum(left) == pytest.approx(1)
    assert found["arms"]["cascade"]["0.3"]["x_saved_compute"] < 50


@pytest.mark.long
def test_quantize(capsys):
    found = result(quantize, capsys)
    names = {"x_size", "x_ort_fp32", "x_torch_eager", "acc_loss_ptq", "acc_loss_qat"}
    assert found.keys() >= names | {"int4_size_ratio", "int4_acc_loss"}
    assert found["x_size"] > 1.5
    assert found["int4_size_ratio"] < 1 / found["x_size"]
    assert found["nets"].keys() == {"smoke"}
