"""A callback can end a run: after that step, in all processes, with a report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from kernels.runtime.callbacks import StopRun
from kernels.runtime.checkpoint_files import stored_in
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.launch import launch
from kernels.runtime.runner import Runner, run
from tests.kernels.runtime.small import batches, config, make_model, squared, weights

PROGRAM = """
from pathlib import Path
from kernels.runtime.group import Group
from tests.kernels.runtime.test_stop_run import Stop, stopped_run
with Group.join(timeout=30) as group:
    report = stopped_run([Stop(3)] if group.is_first else [], Path(sys.argv[1]))
    assert (report.finished, bool(report.stopped)) == (4, True), report
"""


class Stop:
    def __init__(self, step: int, reason: str = "enough") -> None:
        self.step, self.reason, self.heard = step, reason, 0

    def on_step(self, metrics) -> None:
        self.heard = metrics.step
        if metrics.step == self.step:
            raise StopRun(self.reason)


def stopped_run(callbacks, folder=None):
    """A run of 20 steps that is judged after every second one."""
    plan = config(20, evaluation=EvaluationConfig(every=2))
    parts = {"callbacks": callbacks, "folder": folder, "evaluate": lambda _: 1.0}
    return Runner(make_model(), batches, squared, plan, **parts).run()


def test_a_run_ends_after_the_step_and_all_hear_of_it():
    model, first, second = make_model(), Stop(3), Stop(99)
    report = run(model, batches, squared, config(20), [first, second])
    assert (report.finished, report.stopped) == (3, "enough")
    assert first.heard == second.heard == 3
    assert not model.training


def test_without_a_reason_the_callback_is_named():
    assert stopped_run([Stop(4, "")]).stopped == "ended by a callback"


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path):
    run(make_model(), batches, squared, config(20, every=3), [Stop(3)], tmp_path)
    report = run(make_model(), batches, squared, config(20, every=3), [], tmp_path)
    assert (report.steps, report.finished, report.stopped) == (17, 20, "")


def test_where_it_ends_it_is_saved_and_goes_on_bit_for_bit(tmp_path):
    whole = make_model()
    run(whole, batches, squared, config(10), [])
    for every, step in ((0, 4), (3, 4), (4, 4)):
        folder = tmp_path / str(every)
        run(make_model(), batches, squared, config(10, every=every), [Stop(step)], folder)
        assert stored_in(folder)[-1].step == step
        model = make_model()
        report = run(model, batches, squared, config(10, every=every), [], folder)
        assert (report.steps, report.finished) == (10 - step, 10)
        assert torch.equal(weights(model), weights(whole))


@pytest.mark.long
def test_two_processes_end_at_the_next_evaluation_and_save(tmp_path):
    root = str(Path(__file__).resolve().parents[3])
    code = f"import sys; sys.path.insert(0, {root!r})\n{PROGRAM}"
    launch([sys.executable, "-c", code, str(tmp_path)], 2)
    assert [each.step for each in stored_in(tmp_path)] == [4]
