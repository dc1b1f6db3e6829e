"""Graph kernels: layers, attention, sampler and the fraud encoder against PyTorch Geometric.

Every ratio compares one training step (forward, loss, backward) of the same net with the same
weights, in this process, runs taking turns; it is least wall time over least wall time on as many
threads as there are cores (two at most), CPU time and one thread beside it (``_1t``, CPU
seconds). ``sage_x_eager`` is over PyG with an ``edge_index``, ``sage_x_csr`` over PyG with
``torch.sparse_csr`` (the stronger baseline). Gradients are compared in float64 (``grad_err``,
largest difference of any entry over the largest entry) and float32 (``grad_err_float32``). Memory
is the peak of what torch allocates in a step by its profiler's records, the graph's own arrays
added on both sides. The sampler has no baseline: pyg-lib has no build for this torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from kernels.ops.graph import CsrGraph, TemporalSampler
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from models.entity_sage import EntitySage
from tasks.fraud.graph.entity_training import EntityBatches, EntitySettings, entity_loss
from tasks.fraud.graph.snapshots import EntityGraph
from tasks.fraud.simulate import TransfersConfig
from tests.benchmarks._gnn_cases import Case, Step, gat_case, sage_case, training_step
from tests.benchmarks._harness import Timing, emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._pyg import eager_encoder
from tests.benchmarks.fraud_ring import prepare


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a run.

    Attributes:
        sage: Nodes, edges and width of each SAGE graph, by the suffix of its keys.
        gat: Nodes and edges of the attention graph.
        sampler: Nodes, edges and roots.
        accounts: Accounts of the simulated transfers.
        steps: Training steps of the fraud encoder.
        repeats: Timed turns.
    """

    sage: dict[str, tuple[int, int, int]]
    gat: tuple[int, int]
    sampler: tuple[int, int, int]
    accounts: int
    steps: int
    repeats: int


FULL = Size(
    sage={"": (50_000, 1_000_000, 64), "_200k": (200_000, 1_000_000, 32)},
    gat=(30_000, 600_000),
    sampler=(200_000, 4_000_000, 1_024),
    accounts=6_000,
    steps=12,
    repeats=5,
)
SMOKE = Size(
    sage={"": (500, 5_000, 16)},
    gat=(300, 3_000),
    sampler=(500, 5_000, 64),
    accounts=200,
    steps=2,
    repeats=1,
)


def take_turns(ways: dict[str, Step], repeats: int) -> dict[str, Timing]:
    """Return the least wall and the least CPU time of each, after one turn that warms up."""
    times: dict[str, list[Timing]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, step in ways.items():
            with stopwatch() as took:
                step()
            if turn:
                times[name].append(took)
    return {
        name: Timing(min(t.wall for t in all_), min(t.cpu for t in all_))
        for name, all_ in times.items()
    }


def gradient(net: nn.Module, step: Step) -> Tensor:
    """Return all gradients of one step, flat, ordered by parameter name."""
    step()
    named = sorted(net.named_parameters())
    return torch.cat([p.grad.flatten() for _, p in named if p.grad is not None])


def relative(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def peak_bytes(step: Step) -> int:
    """Return the most bytes that a step held allocated at one time, by torch's allocator."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    moves = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return int(np.cumsum([size for _, size in sorted(moves)]).max())


def graph_bytes(graph: CsrGraph) -> int:
    """Return the bytes of both orders of the edges."""
    parts = [t for c in (graph.csr, graph.csc) for t in (c.indptr, c.indices, c.edge)]
    return sum(t.nbytes for t in [*parts, graph.degree])


def errors(ways: Case, loss: Any) -> tuple[float, float]:
    """Return the relative gradient error over PyG's eager net in float64 and in float32."""
    found = []
    for dtype in (torch.float64, torch.float32):
        (theirs, x, edge_index), (ours, _, graph) = ways["eager"], ways["ours"]
        nets = theirs.to(dtype), ours.to(dtype)

        def cast(out: Tensor) -> Any:
            return loss(out)

        wanted, got = (
            gradient(net, training_step(net, x.to(dtype), structure, cast))
            for net, structure in zip(nets, (edge_index, graph), strict=True)
        )
        found.append(relative(got, wanted))
    return found[0], found[1]


def measure(name: str, ways: Case, loss: Any, repeats: int) -> tuple[dict[str, float], list[Any]]:
    """Return ratios, times and memory of one case, and its rows of the table."""
    steps = {way: training_step(*case, loss) for way, case in ways.items()}
    figures: dict[str, float] = {}
    rows = []
    cores = min(2, len(os.sched_getaffinity(0)))
    for count, suffix in ((cores, ""), (1, "_1t")):
        with threads(count):
            times = take_turns(steps, repeats)
        for way, took in times.items():
            figures[f"{name}_{way}_ms{suffix}"] = took.wall * 1e3
            figures[f"{name}_{way}_cpu_ms{suffix}"] = took.cpu * 1e3
            rows.append((f"{name} {way}", count, took.wall * 1e3, took.cpu * 1e3))
            if way not in {"ours", "kept"}:
                measured = (took.wall, times["ours"].wall) if suffix == "" else (
                    took.cpu, times["ours"].cpu,
                )  # fmt: skip
                figures[f"{name}_x_{way}{suffix}"] = measured[0] / measured[1]
    (_, _, edge_index), (_, _, graph) = ways["eager"], ways["ours"]
    held = {way: peak_bytes(steps[way]) for way in ("eager", "ours")}
    figures[f"{name}_peak_mib"] = (held["ours"] + graph_bytes(graph)) / 2**20
    figures[f"{name}_eager_peak_mib"] = (held["eager"] + edge_index.nbytes) / 2**20
    figures[f"{name}_peak_bytes_ratio"] = (
        figures[f"{name}_peak_mib"] / figures[f"{name}_eager_peak_mib"]
    )
    return figures, rows


def sampler_figures(size: tuple[int, int, int], repeats: int, seed: int) -> dict[str, float]:
    """Return sampled edges per CPU second, drawn and most recent, fan-outs 10 and 5, one thread."""
    nodes, edges, roots = size
    rng = np.random.default_rng(seed)
    ends, when = rng.integers(0, nodes, (2, edges)), rng.integers(0, 1_000, edges)
    figures: dict[str, float] = {}
    for key, last in (("sampler", False), ("sampler_last", True)):
        sampler = TemporalSampler(ends[0], ends[1], when, nodes, [10, 5], last=last)
        rates = []
        for turn in range(4 * repeats + 1):
            chosen, before = rng.integers(0, nodes, roots), rng.integers(500, 1_000, roots)
            with threads(1), stopwatch() as took:
                found = sampler.sample(chosen, before, seed=turn)
            rates.append(len(found.edge) / took.cpu / 1e6)
        figures[f"{key}_medges_per_core_s"] = max(rates[1:])
    return figures


def real_figures(size: Size, seed: int) -> tuple[dict[str, float], list[Any]]:
    """Return how much faster the fraud encoder trains on simulated transfers, one thread."""
    tx, _, config = prepare(TransfersConfig(accounts=size.accounts, days=120, seed=seed))
    graph, columns = EntityGraph(tx, config), tuple(e.column for e in config.entities)
    day = (tx.time - config.origin_ms) // 86_400_000
    labelled = np.flatnonzero((day >= 40) & (day < 85) & (tx.label >= 0))
    settings = EntitySettings(steps=size.steps)
    batches = EntityBatches(tx, graph, columns, labelled, settings, seed)
    torch.manual_seed(seed)
    shape = graph.shape(hidden=settings.hidden, embedding=settings.embedding)
    start = EntitySage(shape)
    optimizer = OptimizerConfig(learning_rate=settings.learning_rate)
    plan = RunConfig(steps=size.steps, seed=seed, optimizer=optimizer)
    trained: dict[str, Tensor] = {}

    def training(name: str, make: Callable[[EntitySage], EntitySage]) -> Step:
        def step() -> None:
            encoder = make(start)
            run(encoder, batches, entity_loss, plan)
            trained[name] = nn.utils.parameters_to_vector(encoder.parameters()).detach()

        return step

    def ours(encoder: EntitySage) -> EntitySage:
        made = EntitySage(encoder.config)
        made.load_state_dict(encoder.state_dict())
        return made

    ways = {"eager": training("eager", eager_encoder), "ours": training("ours", ours)}
    with threads(1):
        times = take_turns(ways, size.repeats)
    rows = [(f"encoder {w}, {size.steps} steps", 1, t.wall * 1e3, t.cpu * 1e3)
            for w, t in times.items()]  # fmt: skip
    figures = {f"real_train_{w}_ms": t.cpu * 1e3 for w, t in times.items()}
    figures["real_train_x"] = times["eager"].cpu / times["ours"].cpu
    figures["real_train_x_wall"] = times["eager"].wall / times["ours"].wall
    figures["real_train_diff"] = float((trained["eager"] - trained["ours"]).abs().max())
    figures["real_edges"] = sum(e.edge_index.shape[1] for e in batches(0).graph.edge_stores)
    return figures, rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("gnn-kernels", __doc__.splitlines()[0])
    made.add_argument("--repeats", type=int, default=0, help="timed turns (default 5)")
    args = made.parse_args(argv)
    size = SMOKE if args.smoke else FULL
    repeats = args.repeats or size.repeats
    figures: dict[str, float] = {}
    rows: list[Any] = []
    cases = {f"sage{k}": sage_case(*shape, args.seed) for k, shape in size.sage.items()}
    cases["gat"] = gat_case("GATConv", *size.gat, args.seed)
    cases["gatv2"] = gat_case("GATv2Conv", *size.gat, args.seed)
    off = []
    for name, (ways, loss) in cases.items():
        off.append(errors(ways, loss))
        new, shown = measure(name, ways, loss, repeats)
        figures |= new
        rows += shown
    figures |= sampler_figures(size.sampler, repeats, args.seed)
    new, shown = real_figures(size, args.seed)
    figures |= new
    figures["grad_err"], figures["grad_err_float32"] = (max(e) for e in zip(*off, strict=True))
    figures["peak_bytes_ratio"] = max(v for k, v in figures.items() if "peak_bytes_ratio" in k)
    table("one training step", ("way", "threads", "wall ms", "CPU ms"), rows + shown)
    emit(figures, args)


if __name__ == "__main__":
    run_program("gnn-kernels", main)
