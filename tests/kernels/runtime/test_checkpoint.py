"""Checkpoints: whole or not there, resumed bit for bit, torn ones found, disks full, SIGTERM."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.runtime import checkpoint_files, packing
from kernels.runtime.callbacks import History
from kernels.runtime.checkpoint import CheckpointConfig, Checkpoints
from kernels.runtime.checkpoint_files import MANIFEST, STATE, TENSORS, CheckpointError
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.randomness import random_state, seeded, set_random_state
from kernels.runtime.runner import Runner, run
from kernels.runtime.termination import Terminated
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

PROGRAM = Path(__file__).with_name("killed_run.py")


def trained(folder: Path | None, plan, *callbacks):
    model = make_model()
    run(model, batches, squared, plan, callbacks, folder)
    return weights(model)


def interrupted(folder: Path, plan, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(folder, plan, Stop(after))


def test_a_checkpoint_is_plain_files_with_their_digests(tmp_path):
    trained(tmp_path, config(2))
    (path,) = tmp_path.iterdir()
    assert sorted(p.name for p in path.iterdir()) == [MANIFEST, STATE, TENSORS]
    assert checkpoint_files.damage(path) == ""
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["step"] == 2
    assert manifest["files"][TENSORS]["bytes"] == (path / TENSORS).stat().st_size


@pytest.mark.parametrize("file", [MANIFEST, STATE, TENSORS])
@pytest.mark.parametrize("how", ["torn", "altered", "gone"])
def test_of_a_damaged_checkpoint_the_one_before_is_used(tmp_path, caplog, file, how):
    plan = config(12, every=4)
    interrupted(tmp_path, plan, 9)
    whole = trained(None, config(12))
    target = tmp_path / "step-00000008" / file
    content = target.read_bytes()
    if how == "gone":
        target.unlink()
    else:
        # One bit of the last byte: of the tensors a value that nobody would find strange.
        changed = content[: len(content) // 2] if how == "torn" else content[:-1] + b"\x01"
        target.write_bytes(changed)
    history = History()
    assert torch.equal(trained(tmp_path, plan, history), whole)
    assert [m.step for m in history.steps] == list(range(5, 13))
    assert "step-00000008" in caplog.text


def test_when_all_are_damaged_it_does_not_begin_anew_in_silence(tmp_path):
    plan = config(12, every=4)
    interrupted(tmp_path, plan, 9)
    for path in tmp_path.glob("step-*"):
        (path / TENSORS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="all checkpoints of the run are damaged"):
        trained(tmp_path, plan)


def test_half_written_ones_do_not_count(tmp_path):
    (tmp_path / ".step-00000009.part").mkdir(parents=True)
    trained(tmp_path, config(3))
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000003"]


def test_a_second_place_is_used_when_the_first_is_lost(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    plan = config(12, checkpoint=CheckpointConfig(every=2, second=second, second_every=5))
    interrupted(first, plan, 11)
    assert [p.name for p in sorted(second.iterdir())] == ["step-00000005", "step-00000010"]
    for path in first.iterdir():
        (path / STATE).unlink()
    history = History()
    assert torch.equal(trained(first, plan, history), trained(None, config(12)))
    assert history.steps[0].step == 11


def test_shared_memory_holds_the_newest_and_is_cleared_at_the_end(tmp_path):
    plan = config(12, checkpoint=CheckpointConfig(every=5, memory_every=1))
    interrupted(tmp_path, plan, 9)
    (place,) = [Path("/dev/shm") / (tmp_path / "in-memory").read_text().strip()]
    assert [p.name for p in place.iterdir()] == ["step-00000009"]
    history = History()
    assert torch.equal(trained(tmp_path, plan, history), trained(None, config(12)))
    assert history.steps[0].step == 10
    assert not place.exists()


def test_shared_memory_is_kept_when_the_last_evaluation_fails(tmp_path):
    plan = config(6, checkpoint=CheckpointConfig(memory_every=1))

    def failing(model):
        raise OSError("the file of the held-out rows is gone")

    with pytest.raises(OSError, match="held-out"):
        Runner(make_model(), batches, squared, plan, folder=tmp_path, evaluate=failing).run()
    (place,) = [Path("/dev/shm") / (tmp_path / "in-memory").read_text().strip()]
    assert [p.name for p in place.iterdir()] == ["step-00000005"]
    again = Runner(make_model(), batches, squared, plan, folder=tmp_path, evaluate=lambda _: 0.0)
    assert again.run().steps == 1
    assert not place.exists()


@pytest.mark.parametrize(("goal", "sign"), [("min", 1.0), ("max", -1.0)])
def test_the_best_is_kept_with_its_own_figure(tmp_path, goal, sign):
    """The best step is none of those that are saved anyway; two figures are no numbers."""
    figures = {2: math.nan, 4: 1.0, 6: math.nan, 8: 2.0, 10: 3.0}
    plan = config(
        12,
        evaluation=EvaluationConfig(every=2, goal=goal),
        checkpoint=CheckpointConfig(every=3, keep_last=1, keep_best=2),
    )
    runner = Runner(
        *(make_model(), batches, squared, plan),
        folder=tmp_path,
        evaluate=lambda _: sign * figures.get(runner.step, 4.0),
    )
    report = runner.run()
    assert (report.best, report.best_step) == (sign, 4)
    kept = {each.step: each.metric for each in checkpoint_files.stored_in(tmp_path)}
    # Step 8 was better than the last one, but neither the best by then nor due: not saved at all.
    assert kept == {4: sign, 12: 4.0 * sign}


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path, monkeypatch, caplog):
    write, full = packing.write_tensors, {"at": {4, 6}}

    def failing(path, tensors):
        step = int(path.parent.name.removeprefix(".step-").removesuffix(".part"))
        if step in full["at"]:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, tensors)

    monkeypatch.setattr(checkpoint_files, "write_tensors", failing)
    plan = config(10, checkpoint=CheckpointConfig(every=2, failures=2))
    whole = trained(tmp_path, plan)
    assert torch.equal(whole, trained(None, config(10)))
    assert caplog.text.count("No space left on device; it needs 0 MiB") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000008", "step-00000010"]

    full["at"] = {2, 4, 6}
    with pytest.raises(CheckpointError, match="step-00000006 was not written: No space left"):
        trained(tmp_path / "other", plan)
    full["at"] = {10}
    with pytest.raises(CheckpointError, match="step-00000010"):
        trained(tmp_path / "last", plan)
    assert checkpoint_files.stored_in(tmp_path / "last")[-1].step == 8


def test_saving_in_the_background_takes_the_state_of_its_step(tmp_path, monkeypatch):
    """A slow disk: training goes on and changes the weights while the old ones are written."""
    write = packing.write_tensors

    def slow(path, tensors):
        time.sleep(0.2)
        return write(path, tensors)

    monkeypatch.setattr(checkpoint_files, "write_tensors", slow)
    plan = config(9, checkpoint=CheckpointConfig(every=3, keep_last=9))
    trained(tmp_path, plan)
    for step in (3, 6):
        state = checkpoint_files.read(tmp_path / f"step-{step:08d}")
        model = make_model()
        with pytest.raises(KeyboardInterrupt):
            run(model, batches, squared, config(9), [Stop(step)])
        assert torch.equal(
            torch.cat([t.flatten() for t in state["model"].values()]), weights(model)
        )


def start(folder: Path, steps: int, slow_ms: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PROGRAM, str(folder), str(steps), str(slow_ms)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    out, err = process.communicate(timeout=120)
    return out.splitlines(), err


@pytest.mark.long
def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    """kill -9 at random moments, with every part that has a state of its own."""
    (*_, expected), _ = finish(start(tmp_path / "whole", 16))
    rng, kills, folder = random.Random(5), 0, tmp_path / "killed"
    while True:
        process = start(folder, 16, slow_ms=20)
        assert process.stdout is not None
        for _ in range(rng.randint(5, 9)):
            line = process.stdout.readline()
            if not line or line.startswith("done"):
                break
        if line.startswith("done"):
            break
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        finish(process)
        kills += 1
        assert kills < 30
    finish(process)
    assert line.strip() == expected
    assert kills >= 1


def test_sigterm_saves_the_step_and_ends_the_process(tmp_path):
    process = start(tmp_path, 1_000, slow_ms=20)
    assert process.stdout is not None
    for _ in range(4):
        line = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert process.returncode == -signal.SIGTERM
    stored = checkpoint_files.stored_in(tmp_path)
    assert stored[-1].step >= int(line)
    assert checkpoint_files.damage(stored[-1].path) == ""


def test_sigterm_of_somebody_who_lives_on_ends_the_run(tmp_path):
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))

    class Ask:
        def on_step(self, metrics):
            if metrics.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(Terminated, match="after step 4"):
            trained(tmp_path, config(10), Ask())
        assert asked == [1]
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.equal(trained(tmp_path, config(10)), trained(None, config(10)))


def test_states_of_all_random_generators_come_back():
    def draw():
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    with seeded(3):
        draw()
        plain, tensors = packing.pack(random_state())
        first = draw()
        set_random_state(packing.unpack(json.loads(json.dumps(plain)), tensors))
        assert draw() == first
    before = random_state()["numpy"]["rest"]
    with seeded(3):
        assert draw() != first
    assert random_state()["numpy"]["rest"] == before


def test_due_places():
    plan = CheckpointConfig(every=4, second=Path("/second"), second_every=8)
    found = Checkpoints(Path("/first"), plan, 9)
    due = {step: [p.name for p in found.due(step)] for step in range(1, 10)}
    assert {k: v for k, v in due.items() if v} == {
        4: ["first"],
        8: ["first", "second"],
        9: ["first", "second"],
    }
