"""Adaptive: easy images are answered by less than all of the net, disagreement promised.

For each seed ResNet-18 learns nine kinds of surface (64 x 64 pixels). A cascade puts two small
nets in front of it, which have learned to say what it says, also of new surfaces without labels.
Exits stand behind the stages of ResNet-18 itself, trained on a little. Temperatures are fitted on
one held part, limits found on another with a promise for each, and everything is judged on a third:
products that were in fact computed, and answers that differ from those of the whole net.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from kernels.compression.adaptive import MultiExit, calibrate, exit_loss, probabilities_of
from kernels.compression.distillation import softened
from models.defect_net import DefectNetShape
from tests.benchmarks._compared import mean_interval
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import SmallNet, add_kept, trained_resnet18
from tests.benchmarks._texture_task import (
    SIDE,
    Batch,
    Part,
    Task,
    half_labelled,
    inputs,
    make_task,
    some_task,
    train,
)

SMALL = (
    DefectNetShape(stem=8, widths=(16, 32, 64), blocks=(1, 1, 1)),
    DefectNetShape(stem=16, widths=(24, 48, 96), blocks=(1, 1, 1)),
)
"""Shapes of the nets in front: some 2 and 5 % of ResNet-18's products."""
DRAWN = (1, 300, 200)
"""Images of each kind on which promises are made (second) and judged (third)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Parts no net has been trained on.

    Attributes:
        fit: For temperatures.
        promise: For limits.
        test: To judge by.
    """

    fit: Part
    promise: Part
    test: Part


class Tempered(nn.Module):
    """A net or head whose logits are divided by a temperature."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.temperature = inner, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.inner(x) / self.temperature
        return logits


def cascade(full: nn.Module, task: Task, steps: int, more: int) -> MultiExit:
    """Return nets in the order of their size, the full one last; each is shown the image itself."""
    torch.manual_seed(task.seed)
    nets = nn.ModuleList(SmallNet(task.classes, shape) for shape in SMALL)
    teacher = copy.deepcopy(full).eval().requires_grad_(requires_grad=False).to(task.device)

    def loss(model: nn.Module, pair: Batch) -> tuple[Tensor, int]:
        x, labels = pair
        with torch.no_grad():
            given = teacher(x)
        total = x.new_zeros(())
        for answers in model(x):
            named = functional.cross_entropy(answers[: len(labels)], labels, reduction="sum")
            total = total + 0.1 * named + 0.9 * len(x) * softened(answers, given, 4.0)
        return total, len(labels)

    side_by_side = MultiExit([nn.Identity() for _ in nets], list(nets))
    train(
        side_by_side,
        task,
        steps,
        2e-3,
        loss=loss,
        batches=lambda index: half_labelled(task, index, more),
    )
    heads = [Tempered(each) for each in (*nets, copy.deepcopy(full))]
    return MultiExit([nn.Identity() for _ in heads], heads)


def exits(full: Any, task: Task, steps: int) -> MultiExit:
    """Return ResNet-18 with an exit behind each stage, trained on a little with all of them."""
    torch.manual_seed(task.seed)
    net = copy.deepcopy(full)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    stages = [stem, net.layer2, net.layer3, net.layer4]
    last = [nn.Linear(width, task.classes) for width in (64, 128, 256)] + [net.fc]
    heads = [
        Tempered(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)) for linear in last
    ]
    made = MultiExit(stages, heads)

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        return exit_loss(model(batch[0]), batch[1]), len(batch[1])

    train(made, task, steps, 5e-4, loss=loss, begin=1_000_000)
    return made


def answers(made: MultiExit, images: Tensor) -> list[Tensor]:
    """Return the logits [n, classes] of each exit for uint8 images."""
    made.eval()
    with torch.inference_mode():
        parts = [made(inputs(part)) for part in images.split(128)]
    return [torch.cat(each) for each in zip(*parts, strict=True)]


def temper(made: MultiExit, images: Tensor) -> None:
    """Fit each exit's temperature, so that its probabilities say how often the last one agrees."""
    *early, last = answers(made, images)
    said = last.argmax(1)
    for head, logits in zip(list(made.heads)[:-1], early, strict=True):
        tried = np.geomspace(0.1, 10, 81)
        losses = [float(functional.cross_entropy(logits / t, said)) for t in tried]
        assert isinstance(head, Tempered)
        head.temperature = float(tried[int(np.argmin(losses))])


def products(function: Any, *given: Any) -> int:
    """Return how many products a call computes in layers."""
    with FlopCounterMode(display=False) as counted:
        function(*given)
    return counted.get_total_flops() // 2


def judge(
    made: MultiExit, parts: Judged, full: int, promises: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Return what each promise brings on the test part.

    Args:
        made: Exits; the last one is what the others must not differ from.
        parts: What it is fitted, promised and judged on.
        full: Products of the whole net for one image.
        promises: Shares of images that may be answered otherwise.
    """
    temper(made, parts.fit[0])
    held = [probabilities_of(each).numpy() for each in answers(made, parts.promise[0])]
    images, labels = parts.test
    whole = answers(made, images)[-1].argmax(1)
    found = {}
    for promised in promises:
        rule = calibrate(held, promised)
        said: list[Tensor] = []
        gone: list[Tensor] = []

        def run(rule: Any = rule, said: Any = said, gone: Any = gone) -> None:
            for part in images.split(128):
                logits, left = made.answer(inputs(part), rule)
                said.append(logits.argmax(1))
                gone.append(left)

        computed = products(run) / len(images)
        names = torch.cat(said)
        found[f"{promised:g}"] = {
            "x_saved_compute": full / computed,
            "disagreement": float((names != whole).double().mean()),
            "acc": float((names == labels).double().mean()),
            "acc_full": float((whole == labels).double().mean()),
            "left": (torch.bincount(torch.cat(gone), minlength=len(made.heads)) / len(images)),
        }
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("adaptive", __doc__.splitlines()[0])
    add_trainings(made)
    made.add_argument("--teacher-steps", type=int, default=300, help="of ResNet-18")
    made.add_argument("--steps", type=int, default=300, help="of the nets in front of it")
    made.add_argument("--exit-steps", type=int, default=100, help="of ResNet-18 with exits")
    made.add_argument("--promises", type=float, nargs="+", default=[0.05, 0.02, 0.1])
    made.add_argument("--unlabelled", type=int, default=16, help="images without labels of 32")
    add_kept(made)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.teacher_steps, args.steps, args.exit_steps = 1, 2, 2, 2
        args.promises, args.unlabelled = [0.3], 2
    with threads(1):
        found, cpu = over_seeds(partial(_of_seed, args=args), args)
    rows = [row for some in found for row in some]
    by_arm = {
        arm: {f"{p:g}": _summary(rows, arm, p) for p in args.promises}
        for arm in ("cascade", "exits")
    }
    columns = ("x_saved_compute", "disagreement", "disagreement_worst", "acc", "acc_full")
    table(
        "adaptive: less than the whole net",
        ("arm", "promised", *columns),
        [
            (arm, promised, *(each[key] for key in columns))
            for arm, found in by_arm.items()
            for promised, each in found.items()
        ],
    )
    first = args.promises[0]
    emit(
        {
            **by_arm["cascade"][f"{first:g}"],
            "promised": first,
            "kept": sum(row["disagreement"] <= row["promised"] for row in rows) / len(rows),
            "arms": by_arm,
            "rows": rows,
            "cpu_seconds": cpu,
        },
        args,
    )


def _of_seed(seed: int, args: Any) -> list[dict[str, Any]]:
    """Train both arms, and return one row per arm and promise."""
    task = some_task(seed, args)
    more = make_task(seed + 5_000, (1, 2, 2) if args.smoke else DRAWN)
    parts = Judged(task.held, more.held, more.test)
    full = trained_resnet18(task, args.teacher_steps, args.kept)
    example = torch.zeros(1, 3, SIDE, SIDE)
    whole = products(full.eval(), example)
    arms = {
        "cascade": cascade(full, task, args.steps, args.unlabelled),
        "exits": exits(full, task, args.exit_steps),
    }
    return [
        {"seed": seed, "arm": arm, "promised": float(promised), **found}
        for arm, net in arms.items()
        for promised, found in judge(net, parts, whole, args.promises).items()
    ]


def _summary(rows: Sequence[dict[str, Any]], arm: str, promised: float) -> dict[str, Any]:
    ours = [row for row in rows if row["arm"] == arm and row["promised"] == promised]
    found: dict[str, Any] = {}
    for key in ("x_saved_compute", "disagreement", "acc", "acc_full"):
        mean, low, high = mean_interval([row[key] for row in ours])
        found |= {key: mean, f"{key}_interval": (low, high)}
    found["disagreement_worst"] = max(row["disagreement"] for row in ours)
    found["left"] = torch.stack([row["left"] for row in ours]).mean(0)
    return found


if __name__ == "__main__":
    run_program("adaptive", main)
