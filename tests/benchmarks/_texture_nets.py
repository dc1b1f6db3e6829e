"""The nets that the benchmarks of compression train on surfaces, and nets kept between them."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision.models
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kernels.compression.distillation import DistillationConfig, Learner
from kernels.compression.pruning.channel_pruner import (
    ChannelPruner,
    FineTune,
    Pruned,
    PruningConfig,
)
from models.defect_net import DefectNet, DefectNetShape
from tests.benchmarks._texture_task import SIDE, Task, half_labelled, inputs, loss, on_labels, train


class SmallNet(nn.Module):
    """The inspection's backbone with a linear head on what its last scale holds on average."""

    def __init__(self, classes: int, shape: DefectNetShape | None = None) -> None:
        super().__init__()
        net = DefectNet(shape)
        # Without its neck, which only maps of defects need; `inputs` prepares the images.
        self.body = nn.Sequential(net.stem, *net.stages)
        self.head = nn.Linear(net.shape.widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes] of [n, 3, h, w]."""
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def resnet18(classes: int) -> nn.Module:
    """Return ResNet-18 without trained weights."""
    net: nn.Module = torchvision.models.resnet18(weights=None, num_classes=classes)
    return net


def trained_resnet18(task: Task, steps: int, kept: Path | None = None) -> nn.Module:
    """Return ResNet-18 trained on a generated task, or as an earlier benchmark has kept it."""
    torch.manual_seed(task.seed)
    return trained("resnet18", resnet18(task.classes), task, steps, kept)


def trained(
    name: str, net: nn.Module, task: Task, steps: int, kept: Path | None = None
) -> nn.Module:
    """Return a net trained on a task, or as an earlier benchmark has kept it under its name."""
    file = f"{name}_{task.seed}_{steps}_{len(task.train[1])}"
    return kept_or(kept, file, net, lambda each: train(each, task, steps))


def taught(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    steps: int,
    config: DistillationConfig,
    *,
    more: int = 0,
    rate: float = 1e-3,
    begin: int = 0,
) -> None:
    """Train a student in place by labels and a teacher.

    Args:
        student: What learns.
        teacher: Stays as it is.
        task: Its batches have the labels.
        steps: Of training.
        config: What is learned.
        more: Images of each batch that have no labels.
        rate: Learning rate.
        begin: Number of the first batch.
    """
    learner = Learner(student, teacher, inputs(task.train[0][:2]), config)
    train(
        learner,
        task,
        steps,
        rate,
        learner.loss(on_labels),
        begin,
        lambda index: half_labelled(task, index, more),
    )


def pruned(
    net: nn.Module,
    task: Task,
    ratio: float,
    config: PruningConfig,
    fine_tune: FineTune | None = None,
) -> Pruned:
    """Return a net without its least telling channels, scored on batches no training takes."""
    return ChannelPruner(net, torch.zeros(1, 3, SIDE, SIDE), ratio, config).prune(
        batches=lambda index: task.batch(2_000_000 + index), loss=loss, fine_tune=fine_tune
    )


def kept_or(
    folder: Path | None, name: str, net: nn.Module, train: Callable[[nn.Module], None]
) -> nn.Module:
    """Return a net with the weights of a folder; else train it in place, and keep it there.

    Args:
        folder: Where nets are kept; without one, it is trained.
        name: Of the file, and all that its weights depend on.
        net: Untrained.
        train: Trains it.
    """
    path = folder / f"{name}.safetensors" if folder else None
    if path and path.is_file():
        net.load_state_dict(load_file(path))
        return net
    train(net)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path)
    return net


def fresh(net: nn.Module, seed: int) -> nn.Module:
    """Return a net of the same sizes with weights drawn anew."""
    torch.manual_seed(seed)
    made = copy.deepcopy(net)
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return made.train()


def size(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def add_kept(made: argparse.ArgumentParser) -> None:
    """Give a parser the option of a folder of trained nets."""
    made.add_argument("--kept", type=Path, help="folder of trained nets, shared by benchmarks")
