"""What every benchmark shares: strict JSON, and one line for a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infra.settings import CHECKOUT
from tests.benchmarks import _harness

BENCHMARKS = sorted((CHECKOUT / "tests" / "benchmarks").glob("[a-z]*.py"))


def emitted(capsys, result) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    _harness.emit(result, _harness.parser("x", "").parse_args(["--json"]))
    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def test_what_is_no_number_becomes_null(capsys):
    nan, inf = float("nan"), float("inf")
    result = {
        "plain": nan,
        "rows": [{"low": inf, "high": (1.5, -inf)}],
        "scalar": np.float32("nan"),
        "array": np.array([1.0, np.nan]),
    }
    found = emitted(capsys, result)
    assert found["plain"] is found["scalar"] is None
    assert found["rows"] == [{"low": None, "high": [1.5, None]}]
    assert found["array"] == [1.0, None]


def test_what_numpy_and_paths_hold_is_kept(capsys):
    found = emitted(
        capsys, {"n": np.int64(3), "yes": np.bool_(True), "path": Path("a/b"), "no": None}
    )
    assert (found["n"], found["yes"], found["path"], found["no"]) == (3, True, "a/b", None)
    with pytest.raises(TypeError, match="may not hold set"):
        emitted(capsys, {"bad": {1}})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_line_and_its_code(capsys, number):
    def work() -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended:
        _harness.run_program("x", work)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_above_tells_of_ctrl_c(capsys, monkeypatch):
    def work() -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("PENSTOCK_BENCH", "x")
    with pytest.raises(SystemExit):
        _harness.run_program("x", work)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_runs_so(path):
    last = path.read_text().splitlines()[-1].strip()
    assert last == f'run_program("{path.stem.replace("_", "-")}", main)'


@pytest.mark.parametrize("content", [None, b"junk"])
def test_bad_data_is_one_line(tmp_path, content):
    data = tmp_path / "bank.parquet"
    if content:
        data.write_bytes(content)
    words = [sys.executable, "-m", "tests.benchmarks.fraud_handbook", "--data", str(data)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(data) in done.stderr
    assert done.stderr.count("\n") == 1
