"""The benchmark of tree SHAP prints its keys, and its judge follows the definition."""

from __future__ import annotations

import json

import numpy as np

from kernels.forest import interventional_reference
from tests.benchmarks import shap_trees
from tests.kernels.test_forest import FEATURES, random_forest


def test_smoke(capsys):
    shap_trees.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "shap-trees"
    for prefix in ("", "deep_"):
        found = {key.removeprefix(prefix): value for key, value in result.items()}
        assert found["max_diff"] <= 1e-9
        assert found["path_max_diff"] <= 1e-9
        assert found["additivity_max"] <= 1e-9
        assert found["shap_diff"] <= 1e-5
        keys = ("rows_s", "shap_tree_rows_s", "ratio", "row_us", "path_rows_s", "path_row_us",
                "shap_path_rows_s", "build_s", "trees", "leaves", "tabulated")  # fmt: skip
        assert all(found[key] > 0 for key in keys)


def test_the_judge_follows_the_definition():
    (trees,) = random_forest(21, [[8, 12, 1, 5]])
    rng = np.random.default_rng(22)
    for tree in trees:
        tree.missing[:] = 0
    x, known = rng.normal(size=(6, FEATURES)), rng.normal(size=(5, FEATURES))
    found = shap_trees.pair_by_pair(trees, x, known)
    wanted = interventional_reference([trees], x, known)[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
