"""Prune: ResNet-18 with channels taken out, against itself: size, products, accuracy, time.

For each seed ResNet-18 learns nine kinds of surface (64 x 64 pixels), is pruned in rounds
with training behind each, and judged on parts that neither training saw. The net that is not
pruned trains on for as many steps, so that the loss is not hidden by more training. With --answers
what is left learns from the net before it was pruned as well. Times are CPU time of ONNX Runtime on
one thread, batch 1 at 224 pixels, both in turns.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.compression.distillation import DistillationConfig
from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.pruning.channel_pruner import Pruned, PruningConfig
from kernels.compression.sessions import open_session
from tests.benchmarks._compared import mean_interval, milliseconds
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import add_kept, pruned, taught, trained_resnet18
from tests.benchmarks._texture_task import SIDE, Task, accuracy, some_task, train

LATENCY_SIDE = 224


def repaired(net: nn.Module, task: Task, ratio: float, config: PruningConfig, args: Any) -> Pruned:
    """Return the net pruned, with half as much training as before shared by the rounds."""
    each = args.steps // 2 // config.rounds
    repair = DistillationConfig(labels=1 - args.answers, answers=args.answers)

    def fine_tune(model: nn.Module, number: int) -> None:
        begin = 1_000_000 * number
        if args.answers:
            more = args.unlabelled
            taught(model, net, task, each, repair, more=more, rate=args.repair_rate, begin=begin)
        else:
            train(model, task, each, args.repair_rate, begin=begin)

    return pruned(net, task, ratio, config, fine_tune)


def of_seed(
    seed: int, args: Any, config: PruningConfig
) -> tuple[list[dict[str, Any]], dict[str, nn.Module]]:
    """Return one row per ratio, and the nets by their names."""
    task = some_task(seed, args)
    net = trained_resnet18(task, args.steps, args.kept)
    longer = copy.deepcopy(net)
    train(longer, task, args.steps // 2, 5e-4, begin=1_000_000)
    acc, acc_before = accuracy(longer, task.test), accuracy(net, task.test)
    nets, rows = {"whole": longer}, []
    for ratio in args.ratios:
        found = repaired(net, task, ratio, config, args)
        nets[f"{ratio:g}"] = found.model
        rows.append(
            {
                "seed": seed,
                "ratio": ratio,
                "acc": acc,
                "acc_before": acc_before,
                "acc_pruned": accuracy(found.model, task.test),
                "params_cut": 1 - found.after.parameters / found.before.parameters,
                "flops_cut": 1 - found.after.multiplications / found.before.multiplications,
            }
        )
    return rows, nets


def times(nets: dict[str, nn.Module], rounds: int, side: int) -> dict[str, float]:
    """Return median CPU milliseconds of nets as ONNX files, one thread, batch 1."""
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    config = ExportConfig(inputs=("pixels",), outputs=("logits",))
    sessions = {
        name: open_session(export_onnx(net.eval(), [example], config), threads=1)
        for name, net in nets.items()
    }
    fed = {"pixels": example.numpy()}
    taken = milliseconds(
        {name: lambda one=one: one.run(None, fed) for name, one in sessions.items()}, rounds
    )
    return {name: float(np.median(each)) for name, each in taken.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("prune", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    add_trainings(made)
    made.add_argument("--steps", type=int, default=1000, help="of training (default %(default)s)")
    made.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.4], help="taken out")
    made.add_argument("--of", default="multiplications", help="what the ratio is of")
    made.add_argument("--answers", type=float, default=0.0, help="weight of the net's own answers")
    made.add_argument("--unlabelled", type=int, default=0, help="images without labels of 32")
    made.add_argument("--repair-rate", type=float, default=5e-4, help="learning rate after pruning")
    made.add_argument("--criterion", default="taylor", help="what goes first")
    made.add_argument("--rounds", type=int, default=3, help="of pruning (default %(default)s)")
    add_kept(made)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps, args.ratios, args.rounds = 1, 2, [0.4], 1
    config = PruningConfig(of=args.of, criterion=args.criterion, rounds=args.rounds)
    with threads(1):
        found, cpu = over_seeds(partial(of_seed, args=args, config=config), args)
        rows = [row for some, _ in found for row in some]
        taken = times(found[0][1], 3 if args.smoke else 60, SIDE if args.smoke else LATENCY_SIDE)
    by_ratio = {f"{ratio:g}": _summary(rows, ratio, taken) for ratio in args.ratios}
    shown = ("params_cut", "flops_cut", "acc", "acc_pruned", "acc_loss", "x_latency")
    table(
        "prune: ResNet-18",
        ("ratio", *shown),
        [(ratio, *(found[key] for key in shown)) for ratio, found in by_ratio.items()],
    )
    first = by_ratio[f"{args.ratios[0]:g}"]
    emit({**first, "ratios": by_ratio, "rows": rows, "ms": taken, "cpu_seconds": cpu}, args)


def _summary(
    rows: Sequence[dict[str, Any]], ratio: float, taken: dict[str, float]
) -> dict[str, Any]:
    ours = [row for row in rows if row["ratio"] == ratio]
    lost = mean_interval([row["acc"] - row["acc_pruned"] for row in ours])
    means = {
        key: float(np.mean([row[key] for row in ours]))
        for key in ("params_cut", "flops_cut", "acc", "acc_pruned")
    }
    return {
        **means,
        "acc_loss": lost[0],
        "acc_loss_interval": lost[1:],
        "x_latency": taken["whole"] / taken[f"{ratio:g}"],
    }


if __name__ == "__main__":
    run_program("prune", main)
