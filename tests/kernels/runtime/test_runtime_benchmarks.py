"""The benchmarks of the runtime print their keys, and what they compare agrees."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import accumulation, checkpoint, memory, pruned_overhead


def result_of(module, capsys) -> dict:
    module.main(["--smoke", "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_memory(capsys):
    result = result_of(memory, capsys)
    for net in memory.NETS:
        assert result[f"saved_bytes_ratio_{net}"] <= memory.BUDGET
        assert result[f"max_grad_err_{net}"] == 0.0
        assert result[f"slowdown_{net}"] > 0
    assert result["saved_bytes_ratio"] == max(
        result[f"saved_bytes_ratio_{net}"] for net in memory.NETS
    )


@pytest.mark.slow
def test_checkpoint(capsys):
    result = result_of(checkpoint, capsys)
    assert result["resume_equal_bits"] is True
    assert result["kills"] == 1
    assert result["torn_detected"] == result["torn_tried"] == 9
    assert result["blocked_ratio"] == result["blocked_ms_async"] / result["sync_ms"]


@pytest.mark.slow
def test_accumulation(capsys):
    result = result_of(accumulation, capsys)
    assert result["max_param_diff"] <= 1e-12
    assert result["parts_mib"] < result["whole_mib"]


def test_overhead(capsys):
    result = result_of(pruned_overhead, capsys)
    assert result["max_param_diff"] <= 1e-6
    difference = result["runner_us_per_step"] - result["loop_us_per_step"]
    assert result["overhead_us_per_step"] == difference
