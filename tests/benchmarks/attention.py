"""Attention: sparse against dense, forward and backward: time, memory, error, a trained task.

Dense is torch's fused kernel (``scaled_dot_product_attention``). The gate's own work, learning
included, counts as the sparse side's. All run in this process on one thread, in turn, on the same
inputs; a ratio is that of the least CPU times. Memory is compared with the fused kernel and with
attention that writes its scores down. The task (recall by key over 2,048 tokens) is trained from
the same weights on the same sequences with either attention.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.module import SparseAttention, dense_attention
from tests.benchmarks._attention_memory import peak_mib, saved_mib
from tests.benchmarks._attention_task import (
    TaskConfig,
    as_dense,
    distilled,
    kept_mass,
    output_error,
    tested,
    trained,
)
from tests.benchmarks._harness import Timing, emit, parser, run_program, stopwatch, table, threads

HEADS, DIM, SHARE = 2, 64, 0.3
RANKS = (8, 32)  # of gates taught after a training with dense attention
SMOKE_TASK = TaskConfig(n=512, questions=128, stretch=64, batch=1, steps=4, tests=1)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def name_of(n: int) -> str:
    """Return how keys name a length."""
    return f"{n // 1024}k" if n >= 1024 else str(n)


def sparse(*, causal: bool, share: float | None = None, **options: Any) -> SparseAttention:
    """Return sparse attention that never turns to dense attention."""
    config = SparseAttentionConfig(
        heads=HEADS, head_dim=DIM, causal=causal, share=share, **{"dense": "never", **options}
    )
    return SparseAttention(config)


def materialised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention that writes its scores down."""
    return ((q @ k.mT) * q.shape[-1] ** -0.5).softmax(-1) @ v


def inputs_of(n: int) -> list[Tensor]:
    """Return random q, k, v and gradient [1, H, n, D]."""
    return [torch.randn(1, HEADS, n, DIM) for _ in "qkvg"]


def in_turn(ways: dict[str, Attention], inputs: list[Tensor], repeats: int) -> dict[str, Timing]:
    """Return the least CPU time of each way; all take turns, after one round that warms up."""
    times: dict[str, list[Timing]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, attention in ways.items():
            q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
            with stopwatch() as took:
                attention(q, k, v).backward(inputs[3])
            times[name].append(took)
    return {name: min(found[1:], key=lambda t: t.cpu) for name, found in times.items()}


def speed(lengths: Sequence[int], repeats: int) -> tuple[dict[str, float], list[tuple[Any, ...]]]:
    """Return the ratios to dense attention, and a row of the table per length and masking."""
    figures: dict[str, float] = {}
    rows: list[tuple[Any, ...]] = []
    for n in lengths:
        for causal in (False, True):
            ways: dict[str, Attention] = {
                "dense": lambda q, k, v, c=causal: dense_attention(q, k, v, None, causal=c),
                "log": sparse(causal=causal),
                "share": sparse(causal=causal, share=SHARE),
            }
            took = in_turn(ways, inputs_of(n), max(2, repeats // 2) if n > 4096 else repeats)
            end = name_of(n) + ("_causal" if causal else "")
            for way, key in (("log", "x_dense_at_"), ("share", "x_dense_share_at_")):
                figures[key + end] = took["dense"].cpu / took[way].cpu
                figures[key.replace("at_", "wall_at_") + end] = took["dense"].wall / took[way].wall
            for way, timing in took.items():
                figures[f"{way}_ms_at_{end}"] = timing.cpu * 1e3
            rows.append((
                end.replace("_", " "), *(took[w].cpu * 1e3 for w in took),
                figures["x_dense_at_" + end], figures["x_dense_share_at_" + end],
                figures["x_dense_wall_at_" + end],
            ))  # fmt: skip
    return figures, rows


def memory(n: int) -> dict[str, float]:
    """Return memory at ``n``; one head suffices for the scores of attention written down."""
    inputs = [x[:, :1].contiguous() for x in inputs_of(n)]
    config = SparseAttentionConfig(heads=1, head_dim=DIM, dense="never")
    ways: dict[str, Attention] = {
        "sparse": SparseAttention(config),
        "dense": lambda q, k, v: dense_attention(q, k, v, None, causal=False),
        "materialised": materialised,
    }
    end = f"_{name_of(n)}"
    peak = {way: peak_mib(call, inputs) for way, call in ways.items()}
    saved = {way: saved_mib(call, inputs) for way, call in ways.items()}
    return {
        "mem_ratio" + end: peak["sparse"] / peak["materialised"],
        "mem_ratio_dense" + end: peak["sparse"] / peak["dense"],
        **{f"peak_mib_{way}{end}": value for way, value in peak.items()},
        **{f"saved_mib_{way}{end}": value for way, value in saved.items()},
    }


@torch.no_grad()
def errors(n: int) -> dict[str, float]:
    """Return relative output errors against dense attention on random inputs.

    Random inputs spread attention evenly, the worst case: what is not kept is simply missing.
    """
    q, k, v, _ = inputs_of(n)
    dense = functional.scaled_dot_product_attention(q, k, v)
    found = {"err_rel_random": sparse(causal=False), "err_rel_all": sparse(causal=False, share=1.0)}
    return {
        key: float((call(q, k, v) - dense).norm() / dense.norm()) for key, call in found.items()
    }


def crossing(lengths: Sequence[int], figures: dict[str, float]) -> dict[str, Any]:
    """Return the shortest length measured from which on sparse attention is faster."""
    found: dict[str, Any] = {}
    for end in ("", "_causal"):
        slower = [n for n in lengths if figures[f"x_dense_at_{name_of(n)}{end}"] <= 1]
        above = [n for n in lengths if n > max(slower, default=0)]
        found["crossover_n" + end] = min(above, default=None)
    return found


def task(config: TaskConfig, seeds: Sequence[int]) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Return losses with either attention, their difference, and how well the gate is taught."""
    rows: list[tuple[Any, ...]] = []
    gaps, errors_found, swaps = [], [], []
    mass: dict[str, list[float]] = {}
    for seed in seeds:
        dense = trained(config, seed, dense=True)
        ours = trained(config, seed, dense=False)
        for rank in RANKS:
            pair = distilled(dense.model, config, seed, rank)
            for when, value in zip(("untaught", "taught"), pair, strict=True):
                mass.setdefault(f"distilled_rank{rank}_{when}", []).append(value)
        gaps.append(ours.loss - dense.loss)
        errors_found.append(output_error(ours.model, config))
        for way, value in kept_mass(ours.model, config, seed).items():
            mass.setdefault(way, []).append(value)
        kept = [mass[way][-1] for way in ("taught", "untaught", "best")]
        accuracy = (dense.accuracy, ours.accuracy)
        rows.append((seed, dense.loss, ours.loss, gaps[-1], *accuracy, errors_found[-1], *kept))
        swaps.append(tested(as_dense(ours.model, config), config).loss)
    return {
        "task_loss_gap": statistics.mean(gaps),
        "task_loss_gap_std": statistics.stdev(gaps),
        "task_loss_gap_max": max(gaps),
        "task_loss_dense": statistics.mean(row[1] for row in rows),
        "task_loss_sparse": statistics.mean(row[2] for row in rows),
        "task_accuracy_dense": statistics.mean(row[4] for row in rows),
        "task_accuracy_sparse": statistics.mean(row[5] for row in rows),
        "task_loss_sparse_run_dense": statistics.mean(swaps),
        "err_rel_task": statistics.mean(errors_found),
        **{f"kept_mass_{way}": statistics.mean(values) for way, values in mass.items()},
        "task_seeds": len(seeds),
        "task_n": config.n,
    }, rows


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("attention", __doc__.splitlines()[0])
    made.add_argument("--repeats", type=int, default=0, help="timed repeats (default 7)")
    made.add_argument("--seeds", type=int, default=0, help="trainings of the task (default 3)")
    args = made.parse_args(argv)
    torch.manual_seed(args.seed)
    if args.smoke:
        lengths, repeats, large, config = (256, 512), 1, 1024, SMOKE_TASK
    else:
        lengths, repeats, large, config = (512, 1024, 2048, 4096, 16384), 7, 16384, TaskConfig()
    seeds = range(args.seed, args.seed + (args.seeds or (2 if args.smoke else 3)))
    with threads(1):
        figures, rows = speed(lengths, args.repeats or repeats)
        figures |= memory(large) | errors(lengths[-1] if args.smoke else 4096)
        learned, trainings = task(config, seeds)
        crossed = crossing(lengths, figures)
    result = {**figures, **crossed, **learned, "err_rel": learned["err_rel_task"]}
    table(
        f"attention, forward and backward, {HEADS} heads of {DIM}, CPU ms, one thread",
        ("n", "dense", "log2(n)", f"share {SHARE}", "x", f"x share {SHARE}", "x wall"),
        rows,
    )
    table(
        f"recall over {config.n:,} tokens",
        ("seed", "dense", "sparse", "gap", "acc.", "acc.", "error", "kept", "first", "best"),
        [tuple(_short(x) for x in row) for row in trainings],
        note="losses, accuracies, error of the output; attention kept: gate, untaught, best",
    )  # fmt: skip
    emit(result, args)


if __name__ == "__main__":
    run_program("attention", main)
