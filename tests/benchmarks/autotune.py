"""AutoTune against random search and grids: CPU seconds until a training reaches the target.

The target is set beforehand by a rule: what the best of 24 random trials reaches in the median, by
96 random trials of other seeds. Each search gets up to four times 24 trials' worth of steps; one
that has not reached the target by then counts with what it has spent, which flatters it. Random
search and grids train every trial to its end. All trials begin with the same weights and see the
same batches, so a grid has one time, whatever the seed. Population-based training is compared with
the same first members on fixed schedules, at the same steps, by the error on rows that none has
seen.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kernels.runtime.schedule import ScheduleConfig
from kernels.tuning.asha import AshaConfig
from kernels.tuning.autotune import AutoTuneConfig
from kernels.tuning.population import PopulationConfig
from tests.benchmarks._autotune_population import Winner, fixed_schedule, population_based
from tests.benchmarks._autotune_problem import GRID, SPACE, Problem, make_problem
from tests.benchmarks._autotune_race import (
    FullTrials,
    Race,
    UntilTarget,
    autotune,
    bootstrap_ratio,
    ratio,
    train,
)
from tests.benchmarks._harness import emit, parser, run_program, table, threads

CAP = 4  # times the trials of the rule


def calibrate(problem: Problem, trials: int, rule: int, seed: int) -> float:
    """Return the target: the median of the best of ``rule`` random trials.

    Args:
        problem: What is trained.
        trials: Random trials it is taken from.
        rule: Trials of a random search of that budget.
        seed: Seed of the draws, which no search uses.
    """
    generator = np.random.default_rng([seed, 1])
    found = [train(problem, SPACE.draw(generator), UntilTarget(-1.0)) for _ in range(trials)]
    return float(np.quantile(found, 1 - 0.5 ** (1 / rule)))


def races(
    problem: Problem, target: float, config: AutoTuneConfig, seeds: range, cap: int
) -> dict[str, list[Race]]:
    """Race all ways of searching, once per seed."""
    full = FullTrials(problem, target)
    grid = SPACE.grid(GRID)
    found: dict[str, list[Race]] = {"autotune": [], "random": [], "grid": [], "shuffled grid": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            found["autotune"].append(
                autotune(problem, config, SPACE, target, Path(folder), seed, cap * problem.steps)
            )
            generator = np.random.default_rng([seed, 2])
            drawn = (SPACE.draw(generator) for _ in range(cap))
            found["random"].append(full.race(drawn))
            found["grid"].append(full.race(islice(grid, cap)))
            order = generator.permutation(len(grid))
            found["shuffled grid"].append(full.race(grid[i] for i in order[:cap]))
            progress(f"search {seed}", {n: round(each[-1].cpu, 2) for n, each in found.items()})
    return found


def populations(
    problem: Problem, seeds: range, steps: int, interval: int
) -> dict[str, list[Winner]]:
    """Train populations and their rivals, once per seed."""
    constant = ScheduleConfig(name="constant", warmup=0.0)
    cosine = ScheduleConfig()
    found: dict[str, list[Winner]] = {"pbt": [], "constant": [], "cosine": []}
    for seed in seeds:
        config = PopulationConfig(steps=steps, interval=interval, seed=seed)
        found["pbt"].append(population_based(problem, config, constant))
        found["constant"].append(fixed_schedule(problem, config, constant))
        found["cosine"].append(fixed_schedule(problem, config, cosine))
        progress(f"population {seed}", {n: round(e[-1].test, 4) for n, e in found.items()})
    return found


def progress(what: str, figures: dict[str, float]) -> None:
    """Tell people how far it is: the whole takes minutes."""
    print(f"{what}: {figures}", file=sys.stderr, flush=True)


def interval_of(name: str, figures: tuple[float, float, float]) -> dict[str, Any]:
    """Return a figure and its interval as keys."""
    return {name: figures[0], f"{name}_interval": list(figures[1:])}


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    made = parser("autotune", "AutoTune against random search and grids")
    made.add_argument("--searches", type=int, default=20, help="seeds (default 20)")
    args = made.parse_args(argv)
    steps, every, rule, pool = (27, 3, 4, 8) if args.smoke else (216, 8, 24, 96)
    seeds = range(2) if args.smoke else range(args.searches)
    problem = make_problem(args.seed, steps=steps, every=every)
    asha = AshaConfig(first=steps // 9, last=steps)
    config = AutoTuneConfig(trials=10 * CAP * rule, asha=asha)
    import optuna  # noqa: F401 - once per process, so before the clock runs

    with threads(1):
        target = calibrate(problem, pool, rule, args.seed)
        raced = races(problem, target, config, seeds, CAP * rule)
        population_steps = (12, 4) if args.smoke else (324, 18)
        trained = populations(problem, seeds[:10], *population_steps)
    rows = [
        (
            name,
            float(np.mean([r.cpu for r in each])),
            float(np.median([r.cpu for r in each])),
            float(np.mean([r.trials for r in each])),
            float(np.mean([r.steps for r in each])),
            sum(r.reached for r in each),
        )
        for name, each in raced.items()
    ]
    columns = ("search", "CPU s", "median", "trials", "steps", "reached")
    table(f"until {target:.4f}, {len(seeds)} seeds", columns, rows)
    errors = {n: np.array([w.test for w in each]) for n, each in trained.items()}
    shown = [(n, float(e.mean()), float(e.std()), cpu(trained[n])) for n, e in errors.items()]
    table("best of 8 members", ("training", "test error", "±", "CPU s"), shown)
    auto = raced["autotune"]
    result: dict[str, Any] = {
        **interval_of("time_to_target_ratio_random", ratio(auto, raced["random"], args.seed)),
        **interval_of("time_to_target_ratio_grid", ratio(auto, raced["grid"], args.seed)),
        **interval_of(
            "time_to_target_ratio_shuffled_grid", ratio(auto, raced["shuffled grid"], args.seed)
        ),
        **interval_of(
            "pbt_error_ratio_constant",
            bootstrap_ratio(errors["pbt"], errors["constant"], args.seed),
        ),
        **interval_of(
            "pbt_error_ratio_cosine", bootstrap_ratio(errors["pbt"], errors["cosine"], args.seed)
        ),
        "pbt_cpu_ratio_constant": cpu(trained["pbt"]) / cpu(trained["constant"]),
        "target": target,
        "searches": len(seeds),
        "asking_share": sum(r.asking for r in auto) / sum(r.cpu for r in auto),
        "wall_seconds": {n: float(np.mean([r.wall for r in each])) for n, each in raced.items()},
        "cpu_seconds": {n: [r.cpu for r in each] for n, each in raced.items()},
        "steps": {n: [r.steps for r in each] for n, each in raced.items()},
        "reached": {n: sum(r.reached for r in each) for n, each in raced.items()},
        "pbt_errors": {n: e.tolist() for n, e in errors.items()},
    }
    result["time_to_target_ratio"] = {
        name: result[f"time_to_target_ratio_{name}"] for name in ("random", "grid")
    }
    emit(result, args)


def cpu(winners: list[Winner]) -> float:
    """Return the mean CPU seconds."""
    return float(np.mean([w.cpu for w in winners]))


if __name__ == "__main__":
    run_program("autotune", main)
