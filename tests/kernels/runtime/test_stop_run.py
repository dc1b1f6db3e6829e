"""A callback can end a run: after that step, in all processes, with a report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kernels.runtime.callbacks import StopRun
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.launch import launch
from kernels.runtime.runner import Runner, run
from tests.kernels.runtime.small import batches, config, make_model, squared

PROGRAM = """
from kernels.runtime.group import Group
from tests.kernels.runtime.test_stop_run import Stop, stopped_run
with Group.join(timeout=30) as group:
    report = stopped_run([Stop(3)] if group.is_first else [])
    assert (report.finished, bool(report.stopped)) == (4, True), report
"""


class Stop:
    def __init__(self, step: int, reason: str = "enough") -> None:
        self.step, self.reason, self.heard = step, reason, 0

    def on_step(self, metrics) -> None:
        self.heard = metrics.step
        if metrics.step == self.step:
            raise StopRun(self.reason)


def stopped_run(callbacks):
    """A run of 20 steps that is judged after every second one."""
    plan = config(20, evaluation=EvaluationConfig(every=2))
    made = Runner(make_model(), batches, squared, plan, callbacks=callbacks, evaluate=lambda _: 1.0)
    return made.run()


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


@pytest.mark.slow
def test_two_processes_end_at_the_next_evaluation():
    root = str(Path(__file__).resolve().parents[3])
    launch([sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{PROGRAM}"], 2)
