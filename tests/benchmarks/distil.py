"""Distil: a student with a tenth of the teacher's parameters, taught and untaught.

For each seed ResNet-18 learns nine kinds of surface (64 x 64 pixels). The inspection's small
net with a head then learns the same twice, from the same weights, for as many steps of 32 images:
by labels alone, and with the teacher's answers beside them. The teacher answers for new surfaces,
too, which nobody has labelled: a line has more images than labels. With --labelled-only a third
student learns without those, so that what the teacher and what the images bring can be told apart.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kernels.compression.distillation import DistillationConfig
from tests.benchmarks._compared import differences, means_of
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import SmallNet, add_kept, size, taught, trained_resnet18
from tests.benchmarks._texture_task import accuracy, some_task, train


def compare(seed: int, args: Any, config: DistillationConfig) -> dict[str, float]:
    """Train teacher and students on one task, and judge them on its test part."""
    task = some_task(seed, args)
    kept = None if args.data else args.kept
    teacher = trained_resnet18(task, args.teacher_steps, kept)
    torch.manual_seed(task.seed)
    alone = SmallNet(task.classes)
    student, second = copy.deepcopy(alone), copy.deepcopy(alone)
    train(alone, task, args.steps)
    more = 0 if args.data else args.unlabelled
    taught(student, teacher, task, args.steps, config, more=more)
    row = {
        "seed": task.seed,
        "acc_teacher": accuracy(teacher, task.test),
        "acc_student": accuracy(student, task.test),
        "acc_scratch": accuracy(alone, task.test),
        "params_cut": 1 - size(alone) / size(teacher),
    }
    if args.labelled_only:
        taught(second, teacher, task, args.steps, config)
        row["acc_labelled_only"] = accuracy(second, task.test)
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("distil", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    add_trainings(made)
    made.add_argument("--steps", type=int, default=300, help="of each student")
    made.add_argument("--teacher-steps", type=int, default=300, help="of the teacher")
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
    keys = ("params_cut", "acc_teacher", "acc_student", "acc_scratch")
    means = means_of(rows, [*keys, *rows[0].keys() & {"acc_labelled_only"}])
    found = differences(
        rows,
        {"gain": ("acc_student", "acc_scratch"), "loss": ("acc_teacher", "acc_student")},
    )
    gap = means["acc_teacher"] - means["acc_scratch"]
    table("distil", tuple(means), [list(means.values())])
    emit(
        {
            **means,
            **found,
            "gap_closed": found["gain"] / gap if gap > 0 else None,
            "rows": rows,
            "cpu_seconds": cpu,
        },
        args,
    )


if __name__ == "__main__":
    run_program("distil", main)
