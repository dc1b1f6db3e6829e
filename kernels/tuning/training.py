"""A trial as a training of the runtime: built from parameters, reported at every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.runtime.accumulation import StepTooLargeError
from kernels.runtime.callbacks import Callback, StepMetrics, StopRun
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.job import TrainingJob, run_job
from kernels.runtime.source import Batch
from kernels.runtime.termination import Terminated
from kernels.tuning.autotune import AutoTune, Trial
from kernels.tuning.space import Value

Build = Callable[[Mapping[str, Value]], TrainingJob[Batch]]
"""Builds a training from parameters: always the same one from the same parameters. Its
``evaluate`` judges, and ``config.evaluation.every`` is how often the figure is reported."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        value: Its figure, None where it had none.
        steps: Steps it has trained, earlier attempts included.
        stopped: Why it ended early; "" when it did not.
    """

    value: float | None
    steps: int
    stopped: str


class Reporting:
    """Tells every evaluation to a search, and ends the run when the search wants that.

    Attributes:
        has_ended: Whether the search wanted it.
    """

    def __init__(self, tune: AutoTune, trial: Trial) -> None:
        self._tune, self._trial = tune, trial
        self.has_ended = False

    def on_step(self, metrics: StepMetrics) -> None:
        """Report the figure, if there was one.

        Raises:
            StopRun: When the trial is not to go on.
        """
        if metrics.metric is not None and not self._tune.report(
            self._trial, metrics.step, metrics.metric
        ):
            self.has_ended = True
            raise StopRun("ended by the search")


def run_trial(
    tune: AutoTune,
    trial: Trial,
    build: Build[Batch],
    *,
    folder: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train a trial and tell what came of it.

    A training that diverges or needs too much memory is a result, the worst one; any other error
    fails the trial and goes on to the caller. Ctrl-C and SIGTERM give it back to the search.

    Args:
        tune: The search.
        trial: What it asked for.
        build: Builds the training.
        folder: Folder for the checkpoints of all trials; with it (and ``config.checkpoint.every``)
            a trial that was killed goes on where it was.
        callbacks: Further listeners.

    Raises:
        ValueError: When the training reports nothing that the search could judge it by.
    """
    reporting = Reporting(tune, trial)
    try:
        training = build(trial.parameters)
        _require_reports(training, tune)
        report = run_job(training, folder / trial.key if folder else None, [*callbacks, reporting])
    except (NonFiniteError, StepTooLargeError) as error:
        tune.tell(trial, float("nan"))
        return Outcome(None, error.finished, str(error))
    except Exception as error:
        if isinstance(error, Terminated):  # its state is saved
            tune.give_back(trial)
        else:
            tune.fail(trial, f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        tune.give_back(trial)
        raise
    whole = report.finished == training.config.steps
    if whole or not reporting.has_ended:
        tune.tell(trial, report.best if report.best is not None else float("nan"))
    return Outcome(report.best, report.finished, "" if whole else report.stopped)


def _require_reports(training: TrainingJob[Batch], tune: AutoTune) -> None:
    """Refuse a training whose reports the search could not use."""
    asha, config = tune.config.asha, training.config
    wanted = config.evaluation
    if training.evaluate is None:
        raise ValueError("the training has no evaluate; give TrainingJob the figure to search for")
    if wanted.goal != tune.config.goal:
        raise ValueError(
            f"evaluation.goal is {wanted.goal!r}, that of the search {tune.config.goal!r}"
        )
    if asha and not 0 < wanted.every <= asha.first:
        raise ValueError(
            f"evaluation.every is {wanted.every}, and the first rung lies at {asha.first} steps; "
            "evaluate at least as often"
        )
    if asha and asha.last != config.steps:
        raise ValueError(
            f"asha.last is {asha.last}, but the training has {config.steps} steps; "
            "give the search the steps of a whole trial"
        )
