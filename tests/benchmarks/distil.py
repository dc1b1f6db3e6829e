"""Distil: a student with a fifth of the teacher's parameters or less, taught and untaught.

For each seed ResNet-18 learns nine kinds of surface (64 x 64 pixels). Two students learn from it:
what is left of ResNet-18 itself when channels are taken out at once, which begins with the
teacher's weights (Muralidharan et al. 2024, https://arxiv.org/abs/2407.14679), and the inspection's
small net with a head, another architecture. Each is compared with the same net from weights drawn
anew, trained by labels alone for as many steps of 32 images. The teacher answers for new surfaces,
too, which nobody has labelled: a line has more images than labels. With --labelled-only the other
architecture learns without those as well, so that what the teacher and what the images bring can be
told apart.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernels.compression.distillation import DistillationConfig
from kernels.compression.pruning.channel_pruner import PruningConfig
from tests.benchmarks._compared import differences, means_of
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import (
    SmallNet,
    add_kept,
    fresh,
    pruned,
    size,
    taught,
    trained_resnet18,
)
from tests.benchmarks._texture_task import Task, accuracy, some_task, train


def compare(
    seed: int, args: Any, config: DistillationConfig
) -> tuple[dict[str, float], dict[str, float]]:
    """Train teacher and students on one task, and judge them on its test part.

    Returns:
        The row of what is left of the teacher, and that of the other architecture.
    """
    task = some_task(seed, args)
    kept = None if args.data else args.kept
    teacher = trained_resnet18(task, args.teacher_steps, kept)
    left = what_is_left(teacher, task, args.ratio)
    torch.manual_seed(task.seed)
    other = SmallNet(task.classes)
    of_teacher = {"seed": seed, "acc_teacher": accuracy(teacher, task.test)}
    pairs = (left, fresh(left, seed)), (copy.deepcopy(other), copy.deepcopy(other))
    first, second = (
        of_teacher
        | of_student(teacher, *pair, task, args, config)
        | {"params_cut": 1 - size(pair[0]) / size(teacher)}
        for pair in pairs
    )
    if args.labelled_only:
        taught(other, teacher, task, args.steps, config)
        second["acc_labelled_only"] = accuracy(other, task.test)
    return first, second


def what_is_left(teacher: nn.Module, task: Task, ratio: float) -> nn.Module:
    """Return the teacher without its least telling channels, untrained since."""
    config = PruningConfig(of="multiplications", criterion="taylor", rounds=1)
    return pruned(teacher, task, ratio, config).model


def of_student(
    teacher: nn.Module,
    student: nn.Module,
    alone: nn.Module,
    task: Task,
    args: Any,
    config: DistillationConfig,
) -> dict[str, float]:
    """Train a student by the teacher, and its like by labels alone; return how good each is."""
    taught(student, teacher, task, args.steps, config, more=0 if args.data else args.unlabelled)
    train(alone, task, args.steps)
    return {
        "acc_student": accuracy(student, task.test),
        "acc_scratch": accuracy(alone, task.test),
    }


def summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return means, gain and loss with their intervals, and the share of the gap that is closed."""
    keys = ("params_cut", "acc_teacher", "acc_student", "acc_scratch")
    means = means_of(rows, [*keys, *rows[0].keys() & {"acc_labelled_only"}])
    found = differences(
        rows,
        {"gain": ("acc_student", "acc_scratch"), "loss": ("acc_teacher", "acc_student")},
    )
    gap = means["acc_teacher"] - means["acc_scratch"]
    return {
        **means,
        **found,
        "gap_closed": found["gain"] / gap if gap > 0 else None,
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("distil", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    add_trainings(made)
    made.add_argument("--steps", type=int, default=400, help="of each student")
    made.add_argument("--teacher-steps", type=int, default=400, help="of the teacher")
    made.add_argument("--ratio", type=float, default=0.4, help="of the products that goes")
    made.add_argument("--answers", type=float, default=0.9, help="weight of the teacher's answers")
    made.add_argument("--temperature", type=float, default=4.0)
    made.add_argument(
        "--unlabelled", type=int, default=16, help="images without labels in each batch of 32"
    )
    made.add_argument(
        "--labelled-only", action="store_true", help="a third student, without unlabelled images"
    )
    add_kept(made)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps, args.teacher_steps, args.unlabelled = 1, 2, 2, 2
    config = DistillationConfig(
        labels=1 - args.answers, answers=args.answers, temperature=args.temperature
    )
    with threads(1):
        rows, cpu = over_seeds(partial(compare, args=args, config=config), args)
    left, other = (summary([pair[place] for pair in rows]) for place in (0, 1))
    shown = ("params_cut", "acc_teacher", "acc_student", "acc_scratch", "gap_closed")
    table(
        "distil",
        ("student", *shown),
        [
            (name, *(found[key] for key in shown))
            for name, found in (("what is left", left), ("another architecture", other))
        ],
    )
    emit({**left, "other_architecture": other, "cpu_seconds": cpu}, args)


if __name__ == "__main__":
    run_program("distil", main)
