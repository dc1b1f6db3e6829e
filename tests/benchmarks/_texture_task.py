"""What the benchmarks of compression train on: which kind of surface it is, 64 x 64 pixels.

Nine kinds of generated surfaces, a new one for every image. With a folder of class folders its
images are taken instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from kernels.runtime.schedule import ScheduleConfig
from tasks.defects.textures.surface import TEXTURES, make_texture

SIDE = 64
KINDS = tuple(kind for kind in TEXTURES if kind not in {"metal", "mixed"})
PARTS = (300, 60, 100)
"""Images of each kind to train on, to hold and to judge by."""
SMOKE = (3, 2, 2)
Part = tuple[Tensor, Tensor]
"""Images uint8 [n, side, side], labels int64 [n]."""
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Task:
    """Parts of one task; all random choices come from its seed.

    Attributes:
        train: To train on.
        held: To calibrate on and to choose by.
        test: To judge by, and for nothing else.
        classes: Number of classes.
        seed: Seed of everything that is drawn.
        device: Where nets are trained; they come back to the CPU.
    """

    train: Part
    held: Part
    test: Part
    classes: int
    seed: int
    device: str = "cpu"

    def batch(self, index: int, size: int = 32) -> Batch:
        """Return batch ``index``: mirrored, turned, lighter or darker; float [size, 3, h, w]."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        images, labels = self.train
        chosen = torch.randint(len(labels), (size,), generator=generator)
        x = inputs(images[chosen])
        turns = torch.randint(8, (size,), generator=generator)
        x = torch.stack([_turned(one, int(turn)) for one, turn in zip(x, turns, strict=True)])
        light = 1 + 0.2 * (torch.rand(size, 1, 1, 1, generator=generator) - 0.5)
        return x * light, labels[chosen]


def make_task(
    seed: int,
    parts: tuple[int, int, int] = PARTS,
    *,
    noise: float = 0.0,
    device: str = "cpu",
) -> Task:
    """Return the generated task.

    Args:
        seed: Of all surfaces.
        parts: Images of each kind to train on, to hold and to judge by.
        noise: Spread of the sensor's noise, as a share of the range, with which a task becomes
            that of another camera, which shows negatives.
        device: Where nets are trained.
    """
    rng = np.random.default_rng(seed)
    pixels: list[list[np.ndarray]] = [[], [], []]
    labels: list[list[int]] = [[], [], []]
    for label, kind in enumerate(KINDS):
        for which, count in enumerate(parts):
            for _ in range(count):
                image = make_texture(kind, SIDE, rng)
                if noise:
                    seen = 255 - image + 255 * noise * rng.standard_normal(image.shape)
                    image = np.clip(seen, 0, 255).astype(np.uint8)
                pixels[which].append(image)
                labels[which].append(label)
    return _task(pixels, labels, len(KINDS), seed, device)


def some_task(seed: int, args: argparse.Namespace) -> Task:
    """Return what a benchmark's options ask for: a folder, generated surfaces, or very few."""
    data: Path | None = getattr(args, "data", None)
    if data:
        return read_task(data, seed, args.device)
    return make_task(seed, SMOKE if args.smoke else PARTS, device=args.device)


def half_labelled(task: Task, index: int, more: int, size: int = 32) -> Batch:
    """Return a batch whose last ``more`` images are new surfaces, which nobody has labelled.

    Returns:
        Images float [size, 3, h, w], labels of the first size - more.
    """
    x, labels = task.batch(index, size - more)
    if not more:
        return x, labels
    rng = np.random.default_rng((task.seed, index, 1))
    kinds = rng.integers(len(KINDS), size=more)
    new = np.stack([make_texture(KINDS[kind], SIDE, rng) for kind in kinds])
    return torch.cat([x, inputs(torch.from_numpy(new))]), labels


def read_task(folder: Path, seed: int, device: str = "cpu") -> Task:
    """Return a folder of class folders as a task: half to train, a sixth held, a third to test."""
    names = sorted(each for each in folder.iterdir() if each.is_dir())
    pixels: list[list[np.ndarray]] = [[], [], []]
    labels: list[list[int]] = [[], [], []]
    for label, name in enumerate(names):
        paths = sorted(p for p in name.iterdir() if p.suffix.lower() in {".png", ".jpg", ".bmp"})
        order = np.random.default_rng((seed, label)).permutation(len(paths))
        for place, number in enumerate(order):
            share = place / len(paths)
            which = int(share >= 1 / 2) + int(share >= 2 / 3)
            with Image.open(paths[number]) as image:
                grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            pixels[which].append(np.asarray(grey))
            labels[which].append(label)
    return _task(pixels, labels, len(names), seed, device)


def _task(
    pixels: list[list[np.ndarray]], labels: list[list[int]], classes: int, seed: int, device: str
) -> Task:
    parts = [
        (torch.from_numpy(np.stack(images)), torch.tensor(numbers))
        for images, numbers in zip(pixels, labels, strict=True)
    ]
    return Task(parts[0], parts[1], parts[2], classes, seed, device)


def inputs(images: Tensor) -> Tensor:
    """Return float32 [n, 3, h, w] of uint8 [n, h, w], each image at mean 0 and spread 1."""
    x = images[:, None].float()
    x = (x - x.mean(dim=(2, 3), keepdim=True)) / (x.std(dim=(2, 3), keepdim=True) + 4)
    return x.expand(-1, 3, -1, -1).contiguous()


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed cross entropy of a batch, and its items."""
    x, labels = batch
    return functional.cross_entropy(model(x), labels, reduction="sum"), len(labels)


def on_labels(answers: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed cross entropy of the images that have labels, and their number."""
    labels = batch[1]
    named = answers[: len(labels)]
    return functional.cross_entropy(named, labels, reduction="sum"), len(labels)


def train(
    model: nn.Module,
    task: Task,
    steps: int,
    rate: float = 1e-3,
    loss: Callable[[nn.Module, Batch], tuple[Tensor, int]] = loss,
    begin: int = 0,
    batches: Callable[[int], Batch] | None = None,
) -> None:
    """Train in place; batches from number ``begin`` on, so that fine-tuning sees other ones."""
    taken = batches or task.batch
    config = RunConfig(
        steps=steps,
        seed=task.seed,
        optimizer=OptimizerConfig(learning_rate=rate),
        schedule=ScheduleConfig(warmup=0.1),
    )

    def moved(index: int) -> Batch:
        x, labels = taken(begin + index)
        return x.to(task.device), labels.to(task.device)

    run(model.to(task.device), moved, loss, config)
    model.to("cpu")


def logits(model: nn.Module, images: Tensor, size: int = 128) -> Tensor:
    """Return [n, classes] of uint8 images."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(inputs(part)) for part in images.split(size)])


def accuracy(model: nn.Module, part: Part) -> float:
    """Return the share of images that are named right."""
    images, labels = part
    return float((logits(model, images).argmax(1) == labels).double().mean())


def _turned(image: Tensor, turn: int) -> Tensor:
    image = image.rot90(turn % 4, (1, 2))
    return image.flip(2) if turn >= 4 else image
