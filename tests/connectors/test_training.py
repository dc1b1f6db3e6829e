"""A user's training by the command's parts: one process, several, its files, its failures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from connectors.training import HANGS, REPORT, WEIGHTS, TrainingRequest, identity, main, train
from infra.errors import PenstockError
from kernels.runtime.hang_detector import HANG_EXIT_CODE, read_statuses
from kernels.runtime.launch import RankFailedError

MODULE = "tests.connectors.own_job"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def request_(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text("".join(f"{i},{i * i % 7}\n" for i in range(12)))
    return TrainingRequest(
        module=f"{MODULE}:build",
        data=str(data),
        changes={"optimizer.learning_rate": "0.05"},
        folder=str(tmp_path / "alone"),
    )


@pytest.mark.long
def test_two_processes_train_what_one_trains(request_, tmp_path):
    alone = train(replace(request_, profile=True))
    assert "<h2>Causes of lost time</h2>" in (tmp_path / "alone/profile/profile.html").read_text()
    assert (alone["finished"], alone["processes"]) == (20, 1)
    assert alone["config"]["optimizer"]["learning_rate"] == 0.05
    together = train(replace(request_, folder=str(tmp_path / "two")), 2)
    assert together["processes"] == 2
    statuses = read_statuses(tmp_path / "two" / HANGS)
    assert [(s.rank, s.step, s.ended) for s in statuses] == [(0, 20, True), (1, 20, True)]
    assert together["best"] == pytest.approx(alone["best"], rel=1e-5)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("alone", "two"))
    assert all(one[name].allclose(two[name], atol=1e-6) for name in one)
    again = train(request_)
    assert (again["steps"], again["finished"]) == (0, 20)
    assert json.loads((tmp_path / "alone" / REPORT).read_text()) == again


def test_the_key_knows_source_data_and_settings(request_):
    data, module = Path(request_.data), request_.module
    first = identity(module, data, {})
    assert identity(module, data, {}) == first
    assert identity(module, data, {"steps": 3}) != first
    assert identity(f"{MODULE}:fail", None, {}) != first
    prepared = identity(f"{MODULE}:prepared", data, {})  # a partial has no source of its own
    assert prepared == identity(f"{MODULE}:prepared", data, {}) != first
    data.write_text("1,2\n")
    assert identity(module, data, {}) != first
    with pytest.raises(PenstockError, match="Check the path given by --data"):
        identity(module, data / "none", {})


@pytest.mark.long
def test_a_failing_process_is_named(tmp_path, capfd):
    request = TrainingRequest(module=f"{MODULE}:fail", folder=str(tmp_path / "run"))
    with pytest.raises(RankFailedError, match="rank 1 of 2 ended with 1"):
        train(request, 2)
    assert "rank 1: ValueError: this process has no data" in capfd.readouterr().err


HANGING = """
import sys, time
from connectors.training import TrainingRequest, _watched
from kernels.runtime.group import Group
from tests.connectors.own_job import build_nothing

request = TrainingRequest(module="x", folder=sys.argv[1], hang_seconds=0.4)
with _watched(build_nothing(), request, Group(0, 2)) as job:
    job.batches(3)
    time.sleep(600)
"""


@pytest.mark.long
def test_a_process_that_hangs_ends_after_the_seconds_asked_for(tmp_path):
    """Not by the whole training, whose start may take longer than a test should wait."""
    child = subprocess.Popen([sys.executable, "-c", HANGING, str(tmp_path)], cwd=ROOT)
    try:
        assert child.wait(60) == HANG_EXIT_CODE
    finally:
        child.kill()
        child.wait()
    told = (tmp_path / HANGS / "hang.txt").read_text()
    assert "rank 0 of 2 hangs" in told
    assert " s) at step 4 in " in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"modul": "x"}', "is no request for a training"),
        (
            '{"module": "x", "folder": "y", "hang_seconds": 0}',
            "hang_seconds must be a number above 0",
        ),
    ],
)
def test_a_broken_request_is_told(tmp_path, caplog, text, message):
    (tmp_path / "request.json").write_text(text)
    assert main([str(tmp_path / "request.json")]) == 1
    assert message in caplog.text
