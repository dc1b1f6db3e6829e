"""The benchmark of wrong cells prints its keys; on the public tables it beats the usual ways."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tests.benchmarks import _dirty_tables, clean_tables


def test_smoke(capsys):
    clean_tables.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "clean-tables"
    assert result["detect_p"] > 0.9
    assert result["detect_f1"] > result["iqr_f1"]
    assert result["auroc"] > 0.95
    assert result["f1_5_rows"] > result["f1_0_rows"]


def test_broken_rows_are_aligned():
    clean = np.array([["a", "b"], ["c", "d"], ["e", "f"]], object)
    dirty = np.array([["a", "b"], ["c", ""], ["", "d"], ["e", "x"]], object)
    assert _dirty_tables.aligned(dirty, clean).tolist() in ([0, 1, -1, 2], [0, -1, 1, 2])


def test_best_f1_and_rates():
    wrong = np.array([True, False, True, False])
    assert clean_tables.best_f1(wrong, np.array([3.0, 1.0, 2.0, 0.0])) == 1.0
    # Equal scores cannot be told apart by a threshold.
    assert clean_tables.best_f1(wrong, np.zeros(4)) == pytest.approx(2 / 3)
    assert clean_tables.rates(wrong, np.array([True, True, False, False])) == (0.5, 0.5, 0.5)


def test_without_data(monkeypatch):
    monkeypatch.delenv("PENSTOCK_DATA", raising=False)
    with pytest.raises(ValueError, match="--data FOLDER"):
        clean_tables.main([])


def test_public_tables_first_five():
    folder = _dirty_tables.data_folder(None) if os.environ.get("PENSTOCK_DATA") else None
    if folder is None or not (folder / "305b_Assessed_2008_Lake").is_dir():
        pytest.skip("PENSTOCK_DATA names no folder of public tables")
    names = sorted(p.name for p in folder.iterdir())[:5]
    tables = [_dirty_tables.read_table(folder / name) for name in names]
    scores = {"engine": [clean_tables.engine(t) for t in tables]}
    wrong, flat = clean_tables.pooled(tables, scores)
    assert clean_tables.rates(wrong, flat["engine"] >= 0.5)[2] > 0.9
