"""Population-based training against the same members on fixed schedules, at the same steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kernels.runtime.config import RunConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.job import TrainingJob
from kernels.runtime.runner import Runner
from kernels.runtime.schedule import ScheduleConfig
from kernels.tuning.population import Population, PopulationConfig
from kernels.tuning.space import Space, Value
from tests.benchmarks._autotune_problem import SPACE, Problem, error

CHANGING = ("learning_rate", "weight_decay", "dropout")
POPULATION_SPACE = Space({name: SPACE.dimensions[name] for name in CHANGING})
# What cannot change, or is left alone: the middle of its range.
FIXED: dict[str, Value] = {"width": 45, "batch": 32}


@dataclass(frozen=True, slots=True)
class Winner:
    """The best member of a population.

    Attributes:
        test: Its error on rows that nobody has seen.
        cpu: CPU seconds of the whole population.
    """

    test: float
    cpu: float


def build(
    problem: Problem, parameters: Mapping[str, Any], seed: int, schedule: ScheduleConfig
) -> TrainingJob[Any]:
    """Return a member's training under a schedule."""
    made = problem.build({**parameters, **FIXED}, seed)
    return replace(made, config=replace(made.config, schedule=schedule))


def population_based(
    problem: Problem, config: PopulationConfig, schedule: ScheduleConfig
) -> Winner:
    """Train a population; its winner is the best by the rows that judge."""
    began = time.process_time()
    report = Population(
        POPULATION_SPACE,
        lambda parameters, number: build(
            problem, parameters, 1_000 * config.seed + number, schedule
        ),
        config,
    ).run()
    cpu = time.process_time() - began
    model = build(problem, report.best.parameters, 0, schedule).model
    model.load_state_dict(report.best.model or {})
    model.eval()
    return Winner(error(model, problem.test), cpu)


def fixed_schedule(problem: Problem, config: PopulationConfig, schedule: ScheduleConfig) -> Winner:
    """Train the same first members, each with its own parameters to the end."""
    members = Population(POPULATION_SPACE, lambda *_: build(problem, {}, 0, schedule), config)
    best, test = float("inf"), float("nan")
    began = time.process_time()
    for number, member in enumerate(members.members):
        made = build(problem, member.parameters, 1_000 * config.seed + number, schedule)
        settings: RunConfig = replace(
            made.config,
            steps=config.steps,
            evaluation=EvaluationConfig(every=config.interval),
        )
        try:
            runner = Runner(made.model, made.batches, made.loss, settings, evaluate=made.evaluate)
            runner.run()
        except NonFiniteError:
            continue
        last = made.evaluate(made.model)
        if last < best:
            best, test = last, error(made.model, problem.test)
    return Winner(test, time.process_time() - began)
