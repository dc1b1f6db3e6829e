"""Scheduling: a trace of a 16-device cluster replayed under our policy and under the known ones.

For each trace the policy is tuned on another day of the same cluster (the profile), then all
policies replay the day itself. Intervals are 95 % bootstrap intervals of the mean over the
traces, paired with the baseline. Utilization is the same for all: device-seconds of useful work
over devices times makespan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kernels.scheduling.bound import makespan_bound
from kernels.scheduling.jobs import Cluster, Job
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_config import BASELINES, PROFILED, PolicyConfig
from kernels.scheduling.simulator import Replay, simulate
from kernels.scheduling.trace import TraceConfig, TraceGenerator
from kernels.scheduling.tuning import TuningConfig, learned, tune
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

TRACES = 16
# Ours, not tuned, with one part taken away.
WITHOUT = {
    "without_forecast": replace(PROFILED, forecast=False),  # users' limits are believed
    "without_reservation": replace(PROFILED, reserve_hours=0.0),
    "without_order": replace(PROFILED, age=1.0, size=0.0, length=0.0, load=0.0, memory=0.0),
    "without_sharing": replace(PROFILED, share=False),
}


def replays(
    profile: Sequence[Job], day: Sequence[Job], cluster: Cluster, tuning: TuningConfig
) -> tuple[dict[str, Replay], PolicyConfig]:
    """Replay a day under every policy; each starts with the history of the profile."""
    ours = tune(profile, cluster, tuning).policy
    ways = BASELINES | WITHOUT | {"untuned": PROFILED, "ours": ours}
    found = {
        name: simulate(day, Policy(config, cluster, learned(profile)))
        for name, config in ways.items()
    }
    found["without_history"] = simulate(day, Policy(PROFILED, cluster))
    return found, ours


def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (4_000, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    made = parser("schedule-sim", "our placement policy against FIFO, EASY and bin packing")
    made.add_argument("--traces", type=int, default=0, help=f"traces (default {TRACES}, smoke 2)")
    made.add_argument(
        "--interference", type=float, default=0.25, help="slowdown by a busy neighbour (.25)"
    )
    args = made.parse_args(argv)
    cluster = Cluster(interference=args.interference)
    count = args.traces or (2 if args.smoke else TRACES)
    trace = TraceConfig(jobs=80) if args.smoke else TraceConfig()
    tuning = TuningConfig(candidates=4, finalists=2, days=1) if args.smoke else TuningConfig()
    found: dict[str, list[Replay]] = {}
    bounds, chosen = [], []
    with stopwatch() as took:
        for seed in range(args.seed, args.seed + count):
            generator = TraceGenerator(trace, cluster, seed)
            profile, day = generator.day(0), generator.day(1)
            by_policy, config = replays(profile, day, cluster, tuning)
            for name, replay in by_policy.items():
                found.setdefault(name, []).append(replay)
            bounds.append(makespan_bound(day, cluster))
            chosen.append(config)
    emit(report(found, np.array(bounds), chosen, args.seed) | {"cpu_s": took.cpu}, args)


def report(
    found: dict[str, list[Replay]], bounds: np.ndarray, chosen: list[PolicyConfig], seed: int
) -> dict[str, object]:
    """Show the table; return the keys."""
    used = {name: np.array([r.utilization for r in runs]) for name, runs in found.items()}
    spans = {name: np.array([r.makespan for r in runs]) for name, runs in found.items()}
    rows = [
        (
            name,
            used[name].mean(),
            float(np.mean([r.allocation for r in runs])),
            spans[name].mean() / 3600,
            (spans[name] / spans["fifo"]).mean(),
            (spans[name] / bounds - 1).mean(),
            float(np.mean([r.mean_wait for r in runs])) / 3600,
            max(r.longest_wait for r in runs) / 3600,
            float(np.mean([r.mean_slowdown for r in runs])),
        )
        for name, runs in found.items()
    ]
    columns = (
        "policy;utilization;allocation;makespan h;of FIFO's;over bound;wait h;longest;slowdown"
    )
    table(f"{len(bounds)} traces", columns.split(";"), rows)
    result: dict[str, object] = {f"util_{name}": values.mean() for name, values in used.items()}
    result |= {
        "makespan_ratio": (spans["ours"] / spans["fifo"]).mean(),
        "gap_to_bound": (spans["ours"] / bounds - 1).mean(),
        "util_bound": (used["ours"] * spans["ours"] / bounds).mean(),
        "util_ours_std": used["ours"].std(ddof=1),
        "util_fifo_std": used["fifo"].std(ddof=1),
        "makespan_h_fifo": spans["fifo"].mean() / 3600,
        "makespan_h_ours": spans["ours"].mean() / 3600,
        "traces": len(bounds),
        "tuned_away": sum(config != PROFILED for config in chosen),
    }
    for name in sorted(set(found) - {"fifo", "ours"}):
        low, high = interval(used["ours"] - used[name], seed)
        result |= {f"gain_over_{name}_low": low, f"gain_over_{name}_high": high}
        low, high = interval(spans["ours"] / spans[name], seed)
        result |= {f"ratio_to_{name}_low": low, f"ratio_to_{name}_high": high}
    return result


if __name__ == "__main__":
    run_program("schedule-sim", main)
