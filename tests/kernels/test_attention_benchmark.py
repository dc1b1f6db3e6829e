"""The attention benchmark prints its keys; with all blocks kept there is no error."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import attention


@pytest.mark.long
def test_smoke(capsys):
    attention.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "attention"
    assert result["err_rel_all"] < 1e-5
    keys = {"x_dense_at_512", "x_dense_share_at_512_causal", "x_dense_wall_at_256", "mem_ratio_1k",
            "mem_ratio_dense_1k", "saved_mib_sparse_1k", "task_loss_dense", "task_loss_sparse",
            "kept_mass_taught", "kept_mass_best", "kept_mass_distilled_rank8_taught",
            "task_seeds"}  # fmt: skip
    assert all(result[key] > 0 for key in keys)
    assert {"err_rel", "err_rel_random", "task_loss_gap", "task_loss_gap_std", "crossover_n"} <= {
        *result
    }
