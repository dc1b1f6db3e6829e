"""The examples of the guide run as they stand there, and learn."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kernels.runtime.job import build_job, run_job

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "training.md"
EXAMPLE = re.compile(r"^## (.+?)$.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
*BLOCKS, COMMAND = EXAMPLE.findall(GUIDE.read_text(encoding="utf-8"))


def printed(code: str, folder: Path) -> str:
    """Run an example in a folder; return its last line."""
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), warnings.catch_warnings():
        # Of layers with pre-norm, which have no fast path for inference.
        warnings.filterwarnings("ignore", message="enable_nested_tensor")
        exec(compile(code, str(GUIDE), "exec"), {"__name__": "example"})
    return out.getvalue().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "code"),
    [
        pytest.param(*one, id=one[0], marks=[pytest.mark.long] if one[0] != "A table" else [])
        for one in BLOCKS
    ],
)
def test_examples_run_and_learn(title, code, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    # Beside other processes, threads that wait for each other take minutes.
    torch.set_num_threads(1)
    try:
        last = printed(code, tmp_path)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(before)
    if title == "Text":
        found = re.match(r"loss ([\d.]+) -> ([\d.]+) a letter", last)
        assert found is not None, last
        assert float(found[2]) < 0.6 * float(found[1])
    else:
        found = re.search(r"([\d.]+)% right", last)
        assert found is not None, last
        assert float(found[1]) > 93


def test_the_guide_has_its_three_examples():
    assert [title for title, _ in BLOCKS] == ["A table", "Pictures", "Text"]
    assert COMMAND[0] == "From the command line"


def test_the_function_of_the_command_builds_a_job_that_learns(tmp_path):
    rows = np.random.default_rng(0).normal(size=(4, 200, 3))
    for place, x in enumerate(rows):
        columns = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x[:, 0] * x[:, 1]}
        pq.write_table(pa.table(columns), tmp_path / f"{place}.parquet")
    names: dict = {}
    exec(compile(COMMAND[1], str(GUIDE), "exec"), names)
    report = run_job(build_job(names["build"], tmp_path, {"steps": 200}))
    assert report.best < 0.1
