"""Distil: a student with a tenth of the teacher's parameters, taught and untaught.

For each seed ResNet-18 learns nine kinds of surface (64 x 64 pixels). The inspection's small
net with a head then learns the same twice, from the same weights and batches: by labels alone, and
with the teacher's answers beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.models
from torch import Tensor, nn
from torch.nn import functional

from kernels.compression.distillation import DistillationConfig, Learner
from models.defect_net import DefectNet
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._texture_task import (
    PARTS,
    Batch,
    accuracy,
    inputs,
    make_task,
    read_task,
    train,
)


class Student(nn.Module):
    """The inspection's net with a linear head on what its last scale holds on average."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = DefectNet()
        self.head = nn.Linear(self.net.shape.widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes] of [n, 3, h, w]."""
        logits: Tensor = self.head(self.net(x).scales[-1].mean((2, 3)))
        return logits


def on_labels(answers: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed cross entropy, and the items."""
    return functional.cross_entropy(answers, batch[1], reduction="sum"), len(answers)


def size(model: nn.Module) -> int:
    """Return the number of parameters that answering needs."""
    unused = {"net.sides", "net.smooth"}
    return sum(p.numel() for n, p in model.named_parameters() if not n.startswith(tuple(unused)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("distil", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    made.add_argument("--seeds", type=int, default=5, help="trainings (default %(default)s)")
    made.add_argument("--steps", type=int, default=600, help="of each training")
    made.add_argument("--answers", type=float, default=0.9, help="weight of the teacher's answers")
    made.add_argument("--temperature", type=float, default=4.0)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps = 1, 2
    config = DistillationConfig(
        labels=1 - args.answers, answers=args.answers, temperature=args.temperature
    )
    rows: list[dict[str, Any]] = []
    with threads(1), stopwatch() as timing:
        for seed in range(args.seed, args.seed + args.seeds):
            parts = (3, 1, 2) if args.smoke else PARTS
            task = read_task(args.data, seed) if args.data else make_task(seed, parts)
            torch.manual_seed(seed)
            teacher: nn.Module = torchvision.models.resnet18(num_classes=task.classes)
            train(teacher, task, args.steps)
            alone, taught = Student(task.classes), Student(task.classes)
            taught.load_state_dict(alone.state_dict())
            train(alone, task, args.steps)
            learner = Learner(taught, teacher, inputs(task.train[0][:2]), config)
            train(learner, task, args.steps, loss=learner.loss(on_labels))
            rows.append(
                {
                    "seed": seed,
                    "acc_teacher": accuracy(teacher, task.test),
                    "acc_student": accuracy(learner.student, task.test),
                    "acc_scratch": accuracy(alone, task.test),
                    "params_cut": 1 - size(taught) / size(teacher),
                }
            )
    keys = ("params_cut", "acc_teacher", "acc_student", "acc_scratch")
    means = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    gained = mean_interval([row["acc_student"] - row["acc_scratch"] for row in rows])
    lost = mean_interval([row["acc_teacher"] - row["acc_student"] for row in rows])
    gap = means["acc_teacher"] - means["acc_scratch"]
    table("distil", keys, [[means[key] for key in keys]])
    emit(
        {
            **means,
            "gap_closed": gained[0] / gap if gap > 0 else None,
            "gain": gained[0],
            "gain_interval": gained[1:],
            "loss": lost[0],
            "loss_interval": lost[1:],
            "rows": rows,
            "cpu_seconds": timing.cpu,
        },
        args,
    )


if __name__ == "__main__":
    run_program("distil", main)
