"""The benchmark of graph explanations runs at its smallest size and says what it promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.benchmarks import shap_gnn
from tests.benchmarks._motifs import houses, rings


@pytest.mark.long
def test_gnn(capsys):
    shap_gnn.main(["--smoke", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() >= {
        *("ms_per_node", "repeatability", "motif_recall", "motif_recall_sd", "accuracy"),
        *("gnnexplainer_ms", "gnnexplainer_repeatability", "gnnexplainer_recall"),
        *("gradient_recall", "random_recall", "recall_gain_low", "recall_gain_high"),
    }
    assert found["repeatability"] == found["same_bits"] == 1.0
    assert found["additivity_max"] < 1e-6
    assert found["transaction_additivity_max"] < 1e-6
    assert found["motif_recall"] > found["gnnexplainer_recall"]
    assert found["motif_recall"] > 1.5 * found["random_recall"]


@pytest.mark.parametrize("make", [houses, rings])
def test_motifs_are_planted_whole(make):
    planted = make(60, 10, 3)
    again = make(60, 10, 3)
    assert torch.equal(planted.edge_index, again.edge_index)
    ends = planted.motif[planted.edge_index.numpy()]
    inside = planted.of_motif
    assert (ends[0, inside] == ends[1, inside]).all()
    assert (np.bincount(ends[0, inside]) == 12).all()  # six links, both ways
    assert np.bincount(planted.motif + 1)[0] == 60
