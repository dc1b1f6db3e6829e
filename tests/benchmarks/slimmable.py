"""Slimmable: several widths in one training, against nets trained alone at each width.

For each seed a smaller sister of the inspection's net learns nine kinds of surface (64 x 64 pixels)
at all widths at once; then each width learns alone, from weights of its own. All widths at once
take as many steps as cost the products of the separate trainings together: each step trains the
widest and one narrower width. Of several learning rates each training takes the one that is best
on images held out: one rate for all widths at once, but for each width alone its own. --large takes
the inspection's own net, whose trainings take about three times as long. Times are CPU time of ONNX
Runtime on one thread, batch 1 at 224 pixels, in turns; by them the widest net within a budget is
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernels.compression.slimmable import Slimmable, widest_within
from models.defect_net import DefectNetShape
from tests.benchmarks._compared import differences, means_of
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import SmallNet, fresh
from tests.benchmarks._texture_task import SIDE, Task, accuracy, on_labels, some_task, train
from tests.benchmarks.prune import LATENCY_SIDE, times

SMALL = DefectNetShape(16, (32, 64, 128), (1, 1, 1))
SMALLEST = DefectNetShape(16, (16, 32, 64), (1, 1, 1))


def together(
    task: Task, args: Any, shape: DefectNetShape, rate: float
) -> tuple[Slimmable, list[nn.Module]]:
    """Return all widths, trained at once, and each of them."""
    torch.manual_seed(task.seed)
    slim = Slimmable(SmallNet(task.classes, shape), torch.zeros(1, 3, SIDE, SIDE), args.widths)
    loss = slim.loss(on_labels, labels=args.labels, narrower=args.narrower)
    train(slim, task, steps_together(slim, args), rate, loss)
    return slim, [slim.at(number) for number in range(len(slim.widths))]


def steps_together(slim: Slimmable, args: Any) -> int:
    """Return the steps in which all widths at once cost what each of them alone costs in all."""
    *narrow, widest = (cost.multiplications for cost in slim.costs)
    one = widest + args.narrower * sum(narrow) / len(narrow)
    return round(args.steps * (widest + sum(narrow)) / one)


def apart(net: nn.Module, task: Task, steps: int, rate: float) -> nn.Module:
    """Return a net of the same sizes, trained by itself from weights of its own."""
    alone = fresh(net, task.seed)
    train(alone, task, steps, rate)
    return alone


def of_seed(
    seed: int, args: Any, shape: DefectNetShape
) -> tuple[list[dict[str, float]], list[nn.Module]]:
    """Return a row per width, inside the one net and alone, and the nets inside of the one."""
    task = some_task(seed, args)

    def held(*nets: nn.Module) -> float:
        return sum(accuracy(net, task.held) for net in nets)

    tried = [(rate, *together(task, args, shape, rate)) for rate in args.rates]
    rate, slim, inside = max(tried, key=lambda each: held(*each[2]))
    rows = []
    for width, net, cost in zip(slim.widths, inside, slim.costs, strict=True):
        others = [(each, apart(net, task, args.steps, each)) for each in args.rates]
        rate_alone, alone = max(others, key=lambda each: held(each[1]))
        rows.append(
            {
                "seed": task.seed,
                "width": width,
                "acc_inside": accuracy(net, task.test),
                "acc_alone": accuracy(alone, task.test),
                "rate_inside": rate,
                "rate_alone": rate_alone,
                "parameters": cost.parameters,
                "multiplications": cost.multiplications,
            }
        )
    return rows, inside


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("slimmable", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    add_trainings(made)
    made.add_argument("--steps", type=int, default=300, help="of each width alone")
    made.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3], help="tried by all")
    made.add_argument("--labels", type=float, default=0.5, help="weight for all but the widest")
    made.add_argument("--narrower", type=int, default=1, help="widths beside the widest in a step")
    made.add_argument("--large", action="store_true", help="the inspection's own net")
    made.add_argument("--widths", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    made.add_argument("--budget", type=float, help="milliseconds; else midway between the ends")
    args = made.parse_args(argv)
    shape = DefectNetShape() if args.large else SMALL
    if args.smoke:
        args.seeds, args.steps, shape = 1, 2, SMALLEST
        args.widths = args.widths[1::2]
    with threads(1):
        found, cpu = over_seeds(partial(of_seed, args=args, shape=shape), args)
    rows = [row for some, _ in found for row in some]
    nets = {f"{width:g}": net for width, net in zip(args.widths, found[0][1], strict=True)}
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
            "cpu_seconds": cpu,
        },
        args,
    )  # fmt: skip


def _summary(rows: Sequence[dict[str, float]], width: float) -> dict[str, Any]:
    ours = [row for row in rows if row["width"] == width]
    keys = ("acc_inside", "acc_alone", "parameters", "multiplications")
    return means_of(ours, keys) | differences(ours, {"gain": ("acc_inside", "acc_alone")})


if __name__ == "__main__":
    run_program("slimmable", main)
