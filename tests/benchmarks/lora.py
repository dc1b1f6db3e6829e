"""Lora: a net brought to another camera by a few images, all of it or an adapter alone.

For each seed the inspection's small net learns nine kinds of surface. Another camera follows, which
shows negatives with noise, of which a few images of each kind are labelled. The whole net is
fine-tuned on them, and, from the same weights and batches, an adapter with the head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.compression.adapters.adapters import attach, merged
from kernels.compression.adapters.low_rank import LoraConfig
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._texture_task import PARTS, accuracy, inputs, make_task, train
from tests.benchmarks.distil import Student, size


def adapted(base: nn.Module, config: LoraConfig) -> nn.Module:
    """Return a copy of a net with an adapter; the head is trained beside it."""
    net = copy.deepcopy(base)
    attach(net, config)
    net.get_submodule("head").requires_grad_()
    return net


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("lora", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=5, help="trainings (default %(default)s)")
    made.add_argument("--steps", type=int, default=600, help="of the first training")
    made.add_argument("--shots", type=int, default=20, help="labelled images per kind")
    made.add_argument("--rank", type=int, default=4)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps = 1, 2
    # The head is small and new for a line: it is trained as it is.
    names = [n for n, m in Student(2).named_modules() if isinstance(m, nn.Conv2d)]
    targets = tuple(n for n in names if not n.startswith(("net.sides", "net.smooth")))
    config = LoraConfig(rank=args.rank, alpha=2.0 * args.rank, dropout=0.0, targets=targets)
    rows: list[dict[str, Any]] = []
    with threads(1), stopwatch() as timing:
        for seed in range(args.seed, args.seed + args.seeds):
            parts = (3, 1, 2) if args.smoke else PARTS
            task = make_task(seed, parts)
            other = make_task(
                seed + 1_000, (args.shots, 1, 2 if args.smoke else PARTS[2]), noise=0.1
            )
            torch.manual_seed(seed)
            base = Student(task.classes)
            train(base, task, args.steps)
            whole, small = copy.deepcopy(base), adapted(base, config)
            trained = sum(p.numel() for p in small.parameters() if p.requires_grad)
            train(whole, other, args.steps // 2, 5e-4)
            train(small, other, args.steps // 2, 2e-3)
            x = inputs(other.test[0][:32])
            with torch.no_grad():
                inside = merged(small, "default")(x)
                apart = (inside - small(x)).abs().max()
                exact = (
                    (merged(small.double(), "default")(x.double()) - small(x.double())).abs().max()
                )
            rows.append(
                {
                    "seed": seed,
                    "acc_before": accuracy(base, other.test),
                    "acc_full": accuracy(whole, other.test),
                    "acc_lora": accuracy(small.float(), other.test),
                    "trainable_share": trained / size(base),
                    "merge_max_diff": float(apart),
                    "merge_max_diff_float64": float(exact),
                    "answers_max": float(inside.abs().max()),
                }
            )
    keys = ("trainable_share", "acc_before", "acc_full", "acc_lora")
    means = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    lost = mean_interval([row["acc_full"] - row["acc_lora"] for row in rows])
    table("lora", keys, [[means[key] for key in keys]])
    emit(
        {
            **means,
            "merge_max_diff": max(row["merge_max_diff"] for row in rows),
            "merge_max_diff_float64": max(row["merge_max_diff_float64"] for row in rows),
            "loss": lost[0],
            "loss_interval": lost[1:],
            "rows": rows,
            "cpu_seconds": timing.cpu,
        },
        args,
    )


if __name__ == "__main__":
    run_program("lora", main)
