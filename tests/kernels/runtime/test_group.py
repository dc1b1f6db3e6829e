"""Several processes train as one does: the same weights, states, ends; a dead one ends all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kernels.runtime.group import BUCKET_BYTES, Group, buckets
from kernels.runtime.launch import RankFailedError, launch
from tests.processes import wait_for

PROGRAM = Path(__file__).with_name("group_run.py")


def trained(folder: Path, steps: int, processes: int, *doomed: int) -> list[torch.Tensor]:
    """Train in a group, or alone for one process; return the weights of each."""
    command = [sys.executable, str(PROGRAM), str(folder), str(steps), *map(str, doomed)]
    if processes == 1:
        names = ("RANK", "WORLD_SIZE")
        alone = {k: v for k, v in os.environ.items() if k not in names}
        subprocess.run(command, check=True, env=alone, timeout=120)
    else:
        launch(command, processes)
    paths = [folder / f"weights-{rank}.json" for rank in range(processes)]
    return [torch.tensor(json.loads(p.read_text()), dtype=torch.float64) for p in paths]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (found,) = trained(tmp_path_factory.mktemp("alone"), 8, 1)
    return found


@pytest.mark.slow
def test_a_group_ends_at_the_weights_of_one_process(tmp_path, alone):
    """Ragged numbers of items, clipping by a quantile, parts, other first weights on each rank."""
    found = trained(tmp_path, 8, 2)
    for each in found:
        torch.testing.assert_close(each, alone, rtol=0, atol=1e-12)
        assert torch.equal(each, found[0])


@pytest.mark.long
def test_a_killed_rank_ends_all_and_another_number_goes_on(tmp_path, alone):
    began = time.monotonic()
    with pytest.raises(RankFailedError, match="rank 1 of 2 was killed by SIGKILL"):
        trained(tmp_path, 8, 2, 1, 5)
    assert time.monotonic() - began < 60
    assert max(p.name for p in (tmp_path / "run").glob("step-*")) == "step-00000004"
    for processes in (3, 1):
        folder = tmp_path / f"{processes}"
        folder.mkdir()
        (folder / "run").symlink_to(tmp_path / "run")
        for each in trained(folder, 8, processes):
            torch.testing.assert_close(each, alone, rtol=0, atol=1e-12)


def test_one_process_is_a_group():
    group = Group.current()
    assert (group.rank, group.size, group.is_first) == (0, 1, True)
    assert group.sum(1.5, 2) == [1.5, 2]
    assert group.is_any(flag=True)
    assert group.gather({"a": 1}) == [{"a": 1}]
    parameter = torch.nn.Parameter(torch.ones(3))
    group.sum_gradients([parameter])
    assert parameter.grad is None


def test_buckets_hold_one_format_and_about_their_size():
    wide = [torch.zeros(1_000_000) for _ in range(5)]
    narrow = [torch.zeros(10, dtype=torch.bfloat16)]
    found = buckets([*wide, *narrow])
    assert [len(b) for b in found] == [1, 3, 2]
    assert {t.dtype for t in found[0]} == {torch.bfloat16}
    assert all(sum(4 * t.numel() for t in b[:-1]) < BUCKET_BYTES for b in found)


def test_a_group_needs_its_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"RANK, WORLD_SIZE.*start the program by torchrun"):
        Group.join().__enter__()
    with pytest.raises(ValueError, match="at least 1"):
        launch(["true"], 0)


def test_a_failing_program_is_named(tmp_path):
    with pytest.raises(RankFailedError, match="rank 0 of 1 ended with 3"):
        launch([sys.executable, "-c", "raise SystemExit(3)"], 1)
    launch([sys.executable, "-c", "pass"], 2)


def test_who_is_told_to_end_keeps_what_it_has_started_until_it_has_ended(tmp_path):
    """A loader that loses a worker fails the step that is to be saved."""
    rank = """
import pathlib, signal, subprocess, sys, time
worker = subprocess.Popen(["sleep", "60"])
def end(*_):
    time.sleep(0.3)
    pathlib.Path(sys.argv[1], "kept" if worker.poll() is None else "lost").touch()
    worker.kill(); worker.wait(); sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""
    program = (
        "import sys; from kernels.runtime.launch import launch; "
        "launch([sys.executable, '-c', sys.argv[1], sys.argv[2]], 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, rank, str(tmp_path)])
    try:
        wait_for((tmp_path / "ready").exists, seconds=60)
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "kept").exists()
