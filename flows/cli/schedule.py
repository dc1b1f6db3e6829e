"""``penstock schedule``: from probes and finished jobs to a policy, and to Prefect."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.errors import ConfigurationError

app = typer.Typer(
    help="Profile workers, tune a placement policy, replay it, hand it to Prefect.",
    no_args_is_help=True,
    add_completion=False,
)

FREE_MEMORY = "memory.available_gib"  # as the probes name it

Jobs = Annotated[Path, typer.Argument(help="Jobs that ran: .parquet or .csv.", show_default=False)]
Devices = Annotated[int, typer.Option(help="Devices of the cluster.", min=1)]
Memory = Annotated[float, typer.Option(help="Memory of each, GiB.")]


@app.command()
def profile(
    out: Annotated[Path, typer.Argument(help="Parquet file to write.", show_default=False)],
    *,
    minutes: Annotated[float, typer.Option(help="How long; a day for production.")] = 5.0,
    every: Annotated[float, typer.Option(help="Seconds between readings.")] = 5.0,
) -> None:
    """Record the probes of this worker into OUT."""
    from connectors.files import write_table
    from connectors.probes import Probes, record, to_table
    from kernels.scheduling.directions import directions
    from kernels.scheduling.forecast import held_out_ratios

    with Probes() as probes:
        series = record(probes, minutes * 60, every)
        without = probes.without_devices
    write_table(to_table(series), out)
    typer.echo(f"{out}: {len(series.names)} series, {len(series.values)} readings")
    if without:
        typer.echo(f"no devices: {without}")
    ratios = list(held_out_ratios(series).values())
    if ratios:
        typer.echo(
            f"forecast of 5 minutes, error over that of the last value: median "
            f"{median(ratios):.2f}, mean {fmean(ratios):.2f} of {len(ratios)} series that move"
        )
    for each in directions(series):
        typer.echo(f"{each.share:4.0%} of the movement: {', '.join(each.names)}")


@app.command()
def tune(
    jobs: Jobs,
    *,
    out: Annotated[Path, typer.Option(help="Policy file to write.")] = Path("schedule_policy.json"),
    probes: Annotated[
        Path | None, typer.Option(help="Probes of the same time, noted in the file.")
    ] = None,
    devices: Devices = 16,
    memory: Memory = 16.0,
    candidates: Annotated[int, typer.Option(help="Settings that are tried.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Same jobs and seed, same policy.")] = 0,
) -> None:
    """Write the policy that would have run JOBS best."""
    from connectors.files import read_table
    from connectors.job_table import jobs_from_table
    from connectors.probes import from_table
    from kernels.scheduling.jobs import Cluster
    from kernels.scheduling.policy_file import write_policy
    from kernels.scheduling.tuning import TuningConfig, tuned_file

    found = jobs_from_table(read_table(jobs), str(jobs))
    series = from_table(read_table(probes)) if probes else None
    config = TuningConfig(candidates=candidates, finalists=min(6, candidates), seed=seed)
    content = tuned_file(found, Cluster(devices=devices, memory=memory), config, series)
    write_policy(out, content)
    typer.echo(
        f"{out}: {len(found)} jobs, {content.profile['replays']} replays, cost "
        f"{content.profile['start_cost_s'] / 3600:.2f} h before, "
        f"{content.profile['cost_s'] / 3600:.2f} h now"
    )


@app.command()
def simulate(
    jobs: Annotated[
        Path | None, typer.Argument(help="Jobs; none: a generated day.", show_default=False)
    ] = None,
    *,
    policy: Annotated[
        Path | None, typer.Option(help="Policy file, as tune writes it; none: untuned.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the generated day here.")] = None,
    devices: Devices = 16,
    memory: Memory = 16.0,
    seed: Annotated[int, typer.Option(help="Cluster that is generated.")] = 0,
    day: Annotated[int, typer.Option(help="Which of its days.")] = 1,
) -> None:
    """Replay JOBS under FIFO, EASY backfill, first fit and our policy."""
    from connectors.files import read_table, write_table
    from connectors.job_table import jobs_from_table, jobs_to_table
    from kernels.scheduling.bound import makespan_bound
    from kernels.scheduling.jobs import Cluster
    from kernels.scheduling.policy import Policy
    from kernels.scheduling.policy_config import BASELINES, PROFILED
    from kernels.scheduling.policy_file import read_policy
    from kernels.scheduling.simulator import simulate as replay
    from kernels.scheduling.trace import TraceConfig, TraceGenerator

    content = read_policy(policy) if policy else None
    cluster = content.cluster if content else Cluster(devices=devices, memory=memory)
    if jobs is None:
        found = TraceGenerator(TraceConfig(), cluster, seed).day(day)
    else:
        found = jobs_from_table(read_table(jobs), str(jobs))
    if write:
        write_table(jobs_to_table(found), write)
    ways = {name: Policy(config, cluster) for name, config in BASELINES.items()}
    ways["ours"] = content.make() if content else Policy(PROFILED, cluster)
    bound = makespan_bound(found, cluster)
    shown = Table(title=f"{len(found)} jobs on {cluster.devices} devices")
    for column in ("policy", "utilization", "makespan h", "of the bound", "mean wait h"):
        shown.add_column(column, justify="left" if column == "policy" else "right")
    for name, each in ways.items():
        done = replay(found, each)
        figures = (done.makespan / 3600, done.makespan / bound, done.mean_wait / 3600)
        shown.add_row(name, f"{done.utilization:.3f}", *(f"{figure:.2f}" for figure in figures))
    Console().print(shown)


@app.command()
def apply(
    policy: Annotated[Path, typer.Argument(help="Policy file, as tune writes it.")],
    *,
    pool: Annotated[str, typer.Option(help="Work pool; made if it is not there.")] = "penstock",
    host_gib: Annotated[
        float | None,
        typer.Option(help="Memory of the host that a job needs; limits jobs by its forecast."),
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Probes of the host, as profile writes them.")
    ] = None,
) -> None:
    """Set queues, limits and device slots of POLICY on the Prefect server."""
    from flows.cli.deployments import server_environment
    from flows.hand_over import apply_limits
    from kernels.scheduling.policy_file import read_policy

    content = read_policy(policy)
    if (host_gib is None) != (probes is None):
        raise ConfigurationError("--host-gib and --probes belong together", "Give both, or neither")
    most = _host_limit(probes, host_gib) if probes is not None and host_gib is not None else None
    server_environment()
    limits = apply_limits(content, pool, most=most)
    typer.echo(f"{pool}: {limits.most} jobs at most, {len(limits.queues)} queues")


def _host_limit(probes: Path, host_gib: float) -> int:
    """Return how many jobs the host can hold by the forecast of its memory.

    Raises:
        ConfigurationError: When the probes are of something else.
    """
    from connectors.files import read_table
    from connectors.probes import from_table
    from kernels.scheduling.forecast import LoadForecast
    from kernels.scheduling.limits import host_limit

    series = from_table(read_table(probes))
    if FREE_MEMORY not in series.names:
        raise ConfigurationError(
            f"{probes} has no series {FREE_MEMORY}",
            f"Record the host: penstock schedule profile {probes}",
        )
    foretold = LoadForecast(series).next(series.values)
    return host_limit(0, foretold[FREE_MEMORY], host_gib)
