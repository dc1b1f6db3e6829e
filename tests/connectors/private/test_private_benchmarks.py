"""The benchmarks of encrypted scoring run at their smallest size and say what they promise."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import he_fuzz, he_gnn_head, he_linear, he_mlp, he_service, he_trees


def figures(capsys, benchmark, *more):
    benchmark.main(["--smoke", "--json", *more])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_linear(capsys):
    found = figures(capsys, he_linear, "--rows", "500")
    assert found.keys() >= {
        *("server_rows_per_core_s", "compute_rows_per_core_s", "client_us_per_row"),
        *("up_bytes_per_row", "down_bytes_per_row", "one_row_ms", "tenseal_tutorial_rows_s"),
        *("tenseal_tensor_rows_s", "ratio", "max_err", "auc_diff"),
    }
    assert found["max_err"] <= found["proved_err"]
    assert found["ratio"] > 10


@pytest.mark.long
def test_mlp(capsys):
    found = figures(capsys, he_mlp, "--rows", "200")
    for name in ("square", "cubic"):
        assert found[f"{name}_rows_s"] > found["naive_rows_s"]
        assert found[f"{name}_max_err"] <= found[f"{name}_proved_err"]


@pytest.mark.long
def test_trees(capsys):
    found = figures(capsys, he_trees)
    for name in ("", "trees_"):
        assert found[f"{name}max_err"] <= found[f"{name}proved_err"]
    assert found["trees_rows_s"] > 0
    assert found["distil_s"] > 0


@pytest.mark.long
def test_gnn_head(capsys):
    found = figures(capsys, he_gnn_head)
    assert found["max_err"] <= found["proved_err"]
    assert found["x_sequential"] > 67


def test_service(capsys):
    found = figures(capsys, he_service, "--requests", "2")
    assert found["max_err"] <= found["proved_err"]
    assert found["p50_ms_128_rows"] <= found["p99_ms_128_rows"]
    assert found["rss_gib"] > 0


@pytest.mark.long
def test_fuzz(capsys):
    found = figures(capsys, he_fuzz, "--crafted", "40", "--mutations", "300")
    assert (found["crashes"], found["silent_accepts"], found["leaks"]) == (0, 0, 0), found
    assert found["scored"] > 10
    assert found["cases"] > 400
