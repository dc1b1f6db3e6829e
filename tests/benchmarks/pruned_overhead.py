"""Overhead: what the Runner adds to a step of a tiny model, against a loop written by hand.

Both do the same: AdamW (fused), warm-up and cosine, mean loss, clipping by the global norm, a loss
figure for the log. The figure is the difference of the least CPU times of interleaved repeats, per
step, one thread.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kernels.runtime.config import RunConfig
from kernels.runtime.runner import run
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads


def make_model() -> nn.Module:
    """A net whose step takes next to no time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def by_hand(batch: tuple[Tensor, Tensor], steps: int) -> nn.Module:
    """Train as one would write it down."""
    model = make_model()
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 1e-2}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, fused=True)
    warm = round(0.1 * steps)
    losses = []
    model.train()
    for step in range(steps):
        progress = (step - warm) / (steps - warm)
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * ((step + 1) / warm if step < warm else cosine)
        x, y = batch
        optimizer.zero_grad(set_to_none=True)
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model


def by_runner(batch: tuple[Tensor, Tensor], steps: int) -> nn.Module:
    """Train with the Runner."""
    model = make_model()

    def loss(net: nn.Module, given: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        x, y = given
        return ((net(x) - y) ** 2).sum(), len(x)

    run(model, lambda _: batch, loss, RunConfig(steps=steps))
    return model


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    args = parser("pruned-overhead", "Runner against a hand-written loop").parse_args(argv)
    steps, repeats = (50, 2) if args.smoke else (1_000, 15)
    torch.manual_seed(args.seed)
    batch = torch.randn(32, 8), torch.randn(32, 1)
    best = dict.fromkeys(("by_hand", "by_runner"), (float("inf"), float("inf")))
    with threads(1):
        ways = {"by_hand": by_hand, "by_runner": by_runner}
        # Few steps: rounding sums otherwise than means grows from step to step.
        trained = {name: way(batch, 20) for name, way in ways.items()}
        for _ in range(repeats):
            for name, way in ways.items():
                with stopwatch() as took:
                    way(batch, steps)
                best[name] = min(best[name], (took.cpu, took.wall))
    both = [nn.utils.parameters_to_vector(m.parameters()) for m in trained.values()]
    microseconds = {name: 1e6 * cpu / steps for name, (cpu, _) in best.items()}
    result = {
        "loop_us_per_step": microseconds["by_hand"],
        "runner_us_per_step": microseconds["by_runner"],
        "overhead_us_per_step": microseconds["by_runner"] - microseconds["by_hand"],
        "wall_overhead_us_per_step": 1e6 * (best["by_runner"][1] - best["by_hand"][1]) / steps,
        "max_param_diff": float((both[0] - both[1]).detach().abs().max()),
    }
    table("a step of a tiny model", ("figure", "value"), list(result.items()))
    emit(result, args)


if __name__ == "__main__":
    run_program("pruned-overhead", main)
