"""The benchmarks of the runtime print their keys, and what they compare agrees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import accumulation, checkpoint, memory, pruned_overhead, training_parts


def result_of(module, capsys) -> dict:
    module.main(["--smoke", "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.long
def test_memory(capsys):
    result = result_of(memory, capsys)
    for net in memory.NETS:
        assert result[f"saved_bytes_ratio_{net}"] <= memory.BUDGET
        assert result[f"max_grad_err_{net}"] == 0.0
        assert result[f"slowdown_{net}"] > 0
    assert result["saved_bytes_ratio"] == max(
        result[f"saved_bytes_ratio_{net}"] for net in memory.NETS
    )


def test_torn_checkpoints_are_found_out(tmp_path):
    assert checkpoint.torn(tmp_path) == (9, 9)


def test_a_save_in_the_background_is_timed(tmp_path):
    times = checkpoint.saving_times(tmp_path, checkpoint.state_of(2), 1)
    assert {"blocked_ms_async", "sync_ms"} < times.keys()
    assert min(times.values()) > 0


def test_parts_end_at_the_weights_of_the_whole():
    assert accumulation.difference(3) <= 1e-12


def test_overhead(capsys):
    result = result_of(pruned_overhead, capsys)
    assert result["max_param_diff"] <= 1e-6
    difference = result["runner_us_per_step"] - result["loop_us_per_step"]
    assert result["overhead_us_per_step"] == difference


def test_parts(capsys):
    result = result_of(training_parts, capsys)
    assert result["bf16_nearest_gap"] > 10 * abs(result["bf16_master_gap"])
    assert result["clipping_norm_worst"] > 0


@pytest.mark.long
def test_parallel():
    """In a process of its own: it forks eight others."""
    command = [sys.executable, "-m", "tests.benchmarks.parallel", "--smoke", "--json"]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for layout in ("ddp", "fsdp", "tp", "pp", "d3"):
        assert 0 < result[f"{layout}_diff"] <= 1e-6
    assert max(result["bytes_ratio_powersgd"], result["bytes_ratio_topk"]) <= 0.4
    assert result["balance_before"] < 0.92 <= result["balance_after"]
