"""Ways to search, each raced until a training reaches the target; the clock counts CPU seconds.

Every way trains by the same Runner and is judged at the same steps. The clock stops at the first
evaluation at or below the target, in the middle of a trial too, whoever searches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kernels.runtime.callbacks import StepMetrics, StopRun
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.runner import Runner
from kernels.tuning.autotune import AutoTune, AutoTuneConfig
from kernels.tuning.space import Parameters, Space
from kernels.tuning.training import Reporting
from tests.benchmarks._autotune_problem import Problem
from tests.benchmarks._harness import stopwatch

WEIGHTS = 0
"""Seed of every trial's first weights and batches: searches differ in what they try alone."""


@dataclass(slots=True)
class Race:
    """How long a search took.

    Attributes:
        cpu: CPU seconds until the target, or until it gave up.
        trials: Trials begun by then.
        steps: Optimizer steps by then.
        reached: Whether it reached the target.
        wall: Wall seconds by then.
        asking: CPU seconds of ``cpu`` that the search itself took, training left out.
    """

    cpu: float = 0.0
    trials: int = 0
    steps: int = 0
    reached: bool = False
    wall: float = 0.0
    asking: float = 0.0


class UntilTarget:
    """Ends a run at the target; keeps the best figure and the steps."""

    def __init__(self, target: float) -> None:
        self.target, self.best, self.steps = target, float("inf"), 0

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps = metrics.step
        if metrics.metric is not None:
            self.best = min(self.best, metrics.metric)
            if metrics.metric <= self.target:
                raise StopRun("reached")

    @property
    def reached(self) -> bool:
        return self.best <= self.target


def train(problem: Problem, parameters: Parameters, until: UntilTarget, *more: Reporting) -> float:
    """Train a trial; return its best figure, infinity when it diverged."""
    made = problem.build(parameters, WEIGHTS)
    listeners = [until, *more]
    try:
        report = Runner(
            made.model,
            made.batches,
            made.loss,
            made.config,
            callbacks=listeners,
            evaluate=made.evaluate,
        ).run()
    except NonFiniteError:
        return float("inf")
    return float("inf") if report.best is None else report.best


class FullTrials:
    """Trials that train to their end; each is trained once, however many orders take it up."""

    def __init__(self, problem: Problem, target: float) -> None:
        self._problem, self._target = problem, target
        self._known: dict[tuple[object, ...], Race] = {}

    def race(self, order: Iterable[Parameters]) -> Race:
        """Take trials in order until one reaches the target."""
        whole = Race()
        for parameters in order:
            one = self._trained(parameters)
            whole.cpu += one.cpu
            whole.wall += one.wall
            whole.steps += one.steps
            whole.trials += 1
            if one.reached:
                whole.reached = True
                break
        return whole

    def _trained(self, parameters: Parameters) -> Race:
        key = tuple(parameters.values())
        if key not in self._known:
            until = UntilTarget(self._target)
            with stopwatch() as took:
                train(self._problem, parameters, until)
            self._known[key] = Race(took.cpu, 1, until.steps, until.reached, took.wall)
        return self._known[key]


def autotune(
    problem: Problem,
    config: AutoTuneConfig,
    space: Space,
    target: float,
    folder: Path,
    seed: int,
    most_steps: int,
) -> Race:
    """Search by AutoTune until the target, or until the steps are used up."""
    race, training = Race(), 0.0
    chosen = replace(config, seed=seed)
    with stopwatch() as took, AutoTune(space, folder / f"{seed}.jsonl", chosen) as tune:
        while not race.reached and race.steps < most_steps and (trial := tune.ask()):
            until = UntilTarget(target)
            reporting = TimedReporting(tune, trial)
            start = time.process_time()
            best = train(problem, trial.parameters, until, reporting)
            training += time.process_time() - start - reporting.cpu
            race.trials += 1
            race.steps += until.steps
            race.reached = until.reached
            tune.tell(trial, best)
    race.cpu, race.wall = took.cpu, took.wall
    race.asking = race.cpu - training
    return race


class TimedReporting(Reporting):
    """Counts the CPU seconds of its reports."""

    cpu = 0.0

    def on_step(self, metrics: StepMetrics) -> None:
        if metrics.metric is None:
            return
        start = time.process_time()
        try:
            super().on_step(metrics)
        finally:
            self.cpu += time.process_time() - start


def ratio(over: list[Race], under: list[Race], seed: int) -> tuple[float, float, float]:
    """Return the ratio of mean CPU seconds, and its 95 % interval by a bootstrap over the seeds."""
    a, b = (np.array([r.cpu for r in races]) for races in (over, under))
    return bootstrap_ratio(a, b, seed)


def bootstrap_ratio(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return mean(a) / mean(b) over paired samples, with its 95 % bootstrap interval."""
    rows = np.random.default_rng(seed).integers(len(a), size=(10_000, len(a)))
    low, high = np.quantile(a[rows].mean(1) / b[rows].mean(1), (0.025, 0.975))
    return float(a.mean() / b.mean()), float(low), float(high)
