"""Log lines of generated machines, and a small text encoder that says what they report.

A line names a part, what became of it, a station, a number, and a second part that has nothing to
do with it. Another maker's machines say most of it in other words and in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from kernels.runtime.schedule import ScheduleConfig
from tests.benchmarks._texture_task import loss

PARTS = (
    ("pump", "impeller", "circulator", "coolant"),
    ("motor", "drive", "spindle", "servo"),
    ("camera", "lens", "shutter", "imager"),
    ("belt", "conveyor", "roller", "feeder"),
)
EVENTS = (
    ("overheated", "hot", "glowing", "thermal"),
    ("stopped", "halted", "stalled", "frozen"),
    ("recovered", "restored", "resumed", "running"),
)
OTHER_PARTS = (
    ("Pumpe", "Laufrad", "Umwaelzer", "coolant"),
    ("Motor", "Antrieb", "Spindel", "servo"),
    ("Kamera", "Linse", "Verschluss", "imager"),
    ("Band", "Foerderer", "Rolle", "feeder"),
)
OTHER_EVENTS = (
    ("ueberhitzt", "heiss", "gluehend", "thermal"),
    ("gestoppt", "steht", "blockiert", "frozen"),
    ("erholt", "bereit", "laeuft", "running"),
)
GLUE = ("at", "reports", "while", "near", "was", "checked", "bei", "meldet", "neben", "geprueft")
STATIONS = tuple(f"st{number}" for number in range(60))
NUMBERS = tuple(f"n{number}" for number in range(60))
CLASSES = len(PARTS) * len(EVENTS)
LENGTH = 8
Lines = tuple[Tensor, Tensor]
"""Words int64 [n, LENGTH]; what is reported, int64 [n]."""

_GROUPS = (*PARTS, *EVENTS, *OTHER_PARTS, *OTHER_EVENTS, GLUE, STATIONS, NUMBERS)
WORDS = {
    word: number for number, word in enumerate(sorted({w for group in _GROUPS for w in group}))
}


def make_lines(seed: int, count: int, *, other: bool = False) -> Lines:
    """Return lines of every class alike.

    Args:
        seed: Of all that is drawn.
        count: Lines of each class.
        other: Whether another maker's machines wrote them.
    """
    rng = np.random.default_rng((seed, int(other)))
    parts, events = (OTHER_PARTS, OTHER_EVENTS) if other else (PARTS, EVENTS)
    lines, labels = [], []
    for part in range(len(parts)):
        for event in range(len(events)):
            for _ in range(count):
                drawn = rng.integers(1 << 30, size=6).tolist()
                beside = (part + 1 + drawn[0] % (len(parts) - 1)) % len(parts)
                first = parts[part][drawn[1] % len(parts[part])]
                second = parts[beside][drawn[2] % len(parts[beside])]
                what = events[event][drawn[3] % len(events[event])]
                station, number = STATIONS[drawn[4] % 60], NUMBERS[drawn[5] % 60]
                if other:
                    line = [station, "meldet", number, first, what, "neben", second, "geprueft"]
                elif rng.random() < 0.5:
                    line = [first, "at", station, "reports", what, number, "while", second]
                else:
                    line = ["near", second, station, "checked", first, "was", what, number]
                lines.append([WORDS[word] for word in line])
                labels.append(part * len(events) + event)
    return torch.tensor(lines), torch.tensor(labels)


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of the encoder."""

    width: int = 128
    heads: int = 4
    inner: int = 256
    layers: int = 2


class Block(nn.Module):
    """Attention and a layer of its own for each word, norms before both."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        # Layers of their own, which adapters can wrap; torch's attention only reads its weights.
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, shape.inner), nn.Linear(shape.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, length, width] of the same."""
        seen = self.before(x)
        parts = (
            layer(seen).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(*parts)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.outer(functional.gelu(self.inner(self.between(x))))


class TextEncoder(nn.Module):
    """Transformer over words with learned places; the mean over words is classified."""

    def __init__(self, shape: EncoderShape | None = None) -> None:
        super().__init__()
        shape = shape or EncoderShape()
        self.words = nn.Embedding(len(WORDS), shape.width)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, shape.width))
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.head = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, CLASSES))

    def forward(self, words: Tensor) -> Tensor:
        """Return logits [n, CLASSES] of words int64 [n, LENGTH]."""
        logits: Tensor = self.head(self.blocks(self.words(words) + self.places).mean(1))
        return logits


def train_on(model: nn.Module, lines: Lines, seed: int, steps: int, rate: float) -> None:
    """Train in place on batches of 32 lines."""

    def batch(index: int) -> Lines:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        chosen = torch.randint(len(lines[1]), (32,), generator=generator)
        return lines[0][chosen], lines[1][chosen]

    config = RunConfig(
        steps=steps,
        seed=seed,
        optimizer=OptimizerConfig(learning_rate=rate),
        schedule=ScheduleConfig(warmup=0.1),
    )
    run(model, batch, loss, config)


def share_right(model: nn.Module, lines: Lines) -> float:
    """Return the share of lines that are named right."""
    model.eval()
    with torch.inference_mode():
        said: Sequence[Tensor] = [model(part).argmax(1) for part in lines[0].split(512)]
    return float((torch.cat(list(said)) == lines[1]).double().mean())
