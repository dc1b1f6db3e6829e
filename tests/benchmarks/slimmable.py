"""Slimmable: several widths in one training, against nets trained alone at each width.

For each seed the inspection's small net learns nine kinds of surface (64 x 64 pixels) at all
widths at once; then each width learns alone, from weights of its own, for as many steps on the same
batches. Times are CPU time of ONNX Runtime on one thread, batch 1 at 224 pixels, in turns; by them
the widest net within a budget is chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.compression.slimmable import Slimmable, widest_within
from models.defect_net import DefectNetShape
from tests.benchmarks._compared import differences, means_of
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._texture_nets import SmallNet
from tests.benchmarks._texture_task import (
    PARTS,
    SIDE,
    Batch,
    Task,
    accuracy,
    make_task,
    read_task,
    train,
)
from tests.benchmarks.prune import LATENCY_SIDE, times


def on_labels(answers: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed cross entropy, and the items."""
    return functional.cross_entropy(answers, batch[1], reduction="sum"), len(answers)


def fresh(net: nn.Module, seed: int) -> nn.Module:
    """Return a net of the same sizes with weights drawn anew."""
    torch.manual_seed(seed)
    made = copy.deepcopy(net)
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return made.train()


def together(task: Task, steps: int, widths: Sequence[float], shape: DefectNetShape) -> Slimmable:
    """Return all widths, trained at once."""
    torch.manual_seed(task.seed)
    slim = Slimmable(SmallNet(task.classes, shape), torch.zeros(1, 3, SIDE, SIDE), widths)
    train(slim, task, steps, loss=slim.loss(on_labels))
    return slim


def points(slim: Slimmable, task: Task, steps: int) -> list[dict[str, float]]:
    """Return one row per width: what it reaches inside the one net, and trained alone."""
    rows = []
    for number, width in enumerate(slim.widths):
        inside = slim.at(number)
        alone = fresh(inside, task.seed)
        train(alone, task, steps)
        rows.append(
            {
                "seed": task.seed,
                "width": width,
                "acc_inside": accuracy(inside, task.test),
                "acc_alone": accuracy(alone, task.test),
                "parameters": slim.costs[number].parameters,
                "multiplications": slim.costs[number].multiplications,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("slimmable", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    made.add_argument("--seeds", type=int, default=5, help="trainings (default %(default)s)")
    made.add_argument("--steps", type=int, default=300, help="of each training")
    made.add_argument("--widths", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    made.add_argument("--budget", type=float, help="milliseconds; else midway between the ends")
    args = made.parse_args(argv)
    shape = DefectNetShape()
    if args.smoke:
        args.seeds, args.steps = 1, 2
        shape = DefectNetShape(16, (16, 32, 64), (1, 1, 1))
    rows: list[dict[str, float]] = []
    with threads(1), stopwatch() as timing:
        for seed in range(args.seed, args.seed + args.seeds):
            parts = (3, 1, 2) if args.smoke else PARTS
            task = read_task(args.data, seed) if args.data else make_task(seed, parts)
            slim = together(task, args.steps, args.widths, shape)
            rows += points(slim, task, args.steps)
    nets = {f"{width:g}": slim.at(number) for number, width in enumerate(slim.widths)}
    taken = times(nets, 3 if args.smoke else 60, SIDE if args.smoke else LATENCY_SIDE)
    by_width = {name: _summary(rows, float(name)) | {"ms": taken[name]} for name in nets}
    budget = args.budget or (min(taken.values()) + max(taken.values())) / 2
    columns = ("multiplications", "parameters", "acc_inside", "acc_alone", "gain", "ms")
    table(
        "slimmable: one training against one per width",
        ("width", *columns),
        [(name, *(found[key] for key in columns)) for name, found in by_width.items()],
    )
    emit(
        {
            "widths": len(args.widths),
            "pareto_ahead": sum(each["gain"] >= 0 for each in by_width.values()) / len(by_width),
            "pareto_ahead_of_all_points": sum(
                row["acc_inside"] >= row["acc_alone"] for row in rows
            ) / len(rows),
            "budget_ms": budget,
            "chosen_width": args.widths[widest_within(list(taken.values()), budget)],
            "by_width": by_width,
            "rows": rows,
            "cpu_seconds": timing.cpu,
        },
        args,
    )  # fmt: skip


def _summary(rows: Sequence[dict[str, float]], width: float) -> dict[str, Any]:
    ours = [row for row in rows if row["width"] == width]
    keys = ("acc_inside", "acc_alone", "parameters", "multiplications")
    return means_of(ours, keys) | differences(ours, {"gain": ("acc_inside", "acc_alone")})


if __name__ == "__main__":
    run_program("slimmable", main)
