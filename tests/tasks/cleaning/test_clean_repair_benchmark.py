"""The repair benchmark: its keys, and that the promise holds on made-up data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.cleaning.contract.infer import infer
from tasks.cleaning.repair.engine import repair
from tests.benchmarks import clean_repair

CONTRACTS = Path(clean_repair.__file__).with_name("contracts")


def run(capsys, *words):
    clean_repair.main([*words, "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_smoke(capsys):
    result = run(capsys, "--smoke")
    assert result["detect_f1"] > 0.9
    assert result["harm_rate"] <= result["promised_harm"]
    assert {"repair_p", "repair_r", "repair_f1", "harm_cells", "clean_cells", "seconds"} <= set(
        result
    )


def test_harm_stays_below_the_promise_over_seeds():
    for seed in range(12):
        dirty, truth = clean_repair.made_up(300, seed)
        done = repair(dirty, infer(dirty, "firms"))
        result = clean_repair.figures(dirty, done, truth)
        assert result["harm_rate"] <= result["promised_harm"], seed


def test_smoke_with_labels(capsys):
    plain, result = run(capsys, "--smoke"), run(capsys, "--smoke", "--labels", "6")
    for name in ("detect_f1", "repair_f1", "harm_cells"):
        assert result[name] == result["curve"][f"{name}_0"] == plain[name]
    assert result["detect_f1_rest_6"] > plain["detect_f1"]
    assert result["promise_kept_6"] == 1


@pytest.mark.parametrize(
    ("name", "contract", "least"),
    [
        ("hospital", True, 0.91),
        ("hospital", False, 0.75),
        ("beers", True, 0.9),
        ("beers", False, 0.45),
    ],
)
def test_the_figures_of_the_literature_are_passed(capsys, name, contract, least):
    folder = Path(os.environ.get("PENSTOCK_DATA", "/nowhere")) / "cleaning" / name
    if not folder.is_dir():
        pytest.skip("set PENSTOCK_DATA to the folder of the evaluation data")
    words = ["--data", str(folder)]
    if contract:
        words += ["--contract", str(CONTRACTS / f"{name}.toml")]
    result = run(capsys, *words)
    assert result["repair_f1"] >= least
    assert result["harm_rate"] <= result["promised_harm"]


def test_tables_that_do_not_match_are_refused(tmp_path):
    (tmp_path / "dirty.csv").write_text("a\n1\n")
    (tmp_path / "clean.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"dirty.csv is \(1, 1\), clean.csv \(1, 2\)"):
        clean_repair.read_pair(tmp_path)
