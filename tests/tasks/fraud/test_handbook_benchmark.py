"""The handbook benchmark runs on a simulated bank and prints the keys it promises."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.fraud_handbook import main


@pytest.mark.long
def test_smoke_prints_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("ap", "auc", "cp100", "r1"):
        assert 0 < found[key] < 1
        assert found[f"{key}_std"] >= 0
    assert found["gbdt_ap"] == found["ap"]
    assert 0 < found["lr_ap"] < 1
    assert 0 < found["mlp_ap"] < 1
    assert {"gnn_ap", "both_ap", "seconds", "peak_gib"} <= set(found)
    assert {fold["head"] for fold in found["per_fold"]} >= {"gbdt", "lr", "mlp"}
    assert all(math.isfinite(found["over_lr"][m]["low"]) for m in ("ap", "auc", "cp100"))


def test_absent_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--data"):
        main(["--data", str(tmp_path / "nothing.parquet")])
