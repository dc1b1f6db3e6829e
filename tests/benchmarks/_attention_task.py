"""A long-range task for attention: recall of values by key (associative recall, Arora et al. 2023).

A sequence holds a context, each position a random key and a value, and then questions: the keys of
some stretches of the context, in another order, without their values. Keys are fresh vectors in
every sequence, so nothing can be learned by heart: a question is answered by attending to one
position among all. Stretches begin anywhere, not at a block's edge.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.gate import BlockGate, block_shares
from kernels.ops.attention.module import SparseAttention

GAIN = 6.0


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Size of the task, of the model and of its training."""

    n: int = 2048
    questions: int = 512
    stretch: int = 128
    key_dim: int = 32
    values: int = 16
    heads: int = 2
    head_dim: int = 32
    batch: int = 2
    steps: int = 300
    learning_rate: float = 1e-2
    tests: int = 8


class Outcome(NamedTuple):
    """What one training came to, on sequences not trained on."""

    loss: float
    accuracy: float
    model: Recaller


class Recaller(nn.Module):
    """One attention layer between linear maps; ``attend`` is dense or sparse."""

    def __init__(self, config: TaskConfig, *, dense: bool) -> None:
        super().__init__()
        width = config.heads * config.head_dim
        self.heads = config.heads
        self.embed = nn.Linear(config.key_dim + config.values, width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        with torch.no_grad():  # alike keys attract from the start, which shortens the plateau
            self.project.weight[:width] *= GAIN
            self.project.weight[width : 2 * width] = self.project.weight[:width]
        self.answer = nn.Linear(width, config.values)
        self.attend = SparseAttention(
            SparseAttentionConfig(
                heads=config.heads,
                head_dim=config.head_dim,
                causal=True,
                dense="always" if dense else "never",
                gate_weight=0.0 if dense else 1.0,
            )
        )

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, H, n, D]."""
        mixed = self.project(self.embed(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.attend(*self.qkv(x)).transpose(1, 2).flatten(2))


def drawn(config: TaskConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs [B, n, key_dim + values] and answers [B, questions]."""
    made = torch.Generator().manual_seed(seed)
    context = config.n - config.questions
    shape = (config.batch, context)
    keys = torch.randn(*shape, config.key_dim, generator=made)
    values = torch.randint(config.values, shape, generator=made)
    count = config.questions // config.stretch
    starts = torch.randint(context - config.stretch, (config.batch, count, 1), generator=made)
    asked = (starts + torch.arange(config.stretch)).flatten(1)
    told = torch.cat([keys, functional.one_hot(values, config.values).float()], -1)
    question = keys.take_along_dim(asked[..., None], 1)
    blank = torch.zeros(config.batch, config.questions, config.values)
    x = torch.cat([told, torch.cat([question, blank], -1)], 1)
    return x, values.take_along_dim(asked, 1)


def trained(config: TaskConfig, seed: int, *, dense: bool) -> Outcome:
    """Train a model from the seed's weights on the seed's sequences; both attentions share them."""
    torch.manual_seed(seed)
    model = Recaller(config, dense=dense)
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step / config.steps)
        x, wanted = drawn(config, 1_000_000 * (seed + 1) + step)
        loss = functional.cross_entropy(_answers(model, x, config), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*model.embed.parameters(), *model.project.parameters()], 1.0)
        optimizer.step()
    return tested(model, config)


@torch.no_grad()
def tested(model: Recaller, config: TaskConfig) -> Outcome:
    """Return loss and accuracy on held-out sequences, the same for every model."""
    model.eval()
    losses, right = [], []
    for test in range(config.tests):
        x, wanted = drawn(config, test)
        found = _answers(model, x, config)
        losses.append(float(functional.cross_entropy(found, wanted.flatten())))
        right.append(float((found.argmax(-1) == wanted.flatten()).float().mean()))
    return Outcome(sum(losses) / len(losses), sum(right) / len(right), model)


def _answers(model: Recaller, x: Tensor, config: TaskConfig) -> Tensor:
    return model(x)[:, -config.questions :].flatten(0, 1)


def _rate(done: float) -> float:
    return min(1.0, done * 10) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def output_error(model: Recaller, config: TaskConfig) -> float:
    """Return the relative error of a trained model's sparse attention, all positions."""
    x, _ = drawn(config, config.tests)
    q, k, v = model.qkv(x)
    sparse = model.attend(q, k, v)
    dense = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return float((sparse - dense).norm() / dense.norm())


@torch.no_grad()
def kept_mass(model: Recaller, config: TaskConfig, seed: int) -> dict[str, float]:
    """Return the share of the questions' dense attention that lies in the blocks kept.

    By the model's gate, by a gate as it begins, by random blocks, and at best (the blocks that hold
    the most, which needs dense attention to know).
    """
    x, _ = drawn(config, config.tests)
    q, k, _ = model.qkv(x)
    gate, n = model.attend.gate, config.n
    lengths = torch.full((len(x),), n)
    rows = torch.arange(n - config.questions, n).expand(len(x), -1)
    shares = block_shares(q, k, rows, lengths, gate.config)
    tile = rows // gate.config.query_block
    first = (n - config.questions) // gate.config.query_block
    by_tile = shares.unflatten(2, (-1, gate.config.query_block)).mean(3)
    torch.manual_seed(seed)
    pooled = gate.pooled(q, k, lengths)
    taught = gate.scores(*pooled)
    best = torch.zeros_like(taught)
    best[:, :, first:] = by_tile
    ways = {
        "taught": taught,
        "untaught": BlockGate(gate.config).scores(*pooled),
        "random": torch.rand_like(taught),
        "best": best,
    }
    found = {}
    for name, scores in ways.items():
        index = gate.select(scores, lengths, n)
        kept = torch.zeros_like(scores).scatter_(3, index.clamp(min=0), 1.0)
        mine = kept.take_along_dim(tile[:, None, :, None], 2)
        found[name] = float((shares * mine).sum(-1).mean())
    return found


def as_dense(model: Recaller, config: TaskConfig) -> Recaller:
    """Return the model with dense attention in place of its sparse one."""
    made = copy.deepcopy(model)
    plain = Recaller(config, dense=True).attend
    made.attend = plain.eval()
    return made


def distilled(model: Recaller, config: TaskConfig, seed: int, rank: int) -> tuple[float, float]:
    """Teach a new gate a model that was trained with dense attention and stays as it is.

    Returns:
        Share of the questions' attention in the blocks kept, before and after.
    """
    torch.manual_seed(seed)
    student = copy.deepcopy(model)
    gate = BlockGate(replace(model.attend.config, rank=rank))
    student.attend.gate = gate
    before = kept_mass(student, config, seed)["taught"]
    optimizer = torch.optim.Adam(gate.parameters(), lr=config.learning_rate)
    lengths = torch.full((config.batch,), config.n)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step / config.steps)
        with torch.no_grad():
            q, k, _ = model.qkv(drawn(config, 1_000_000 * (seed + 1) + step)[0])
        optimizer.zero_grad()
        gate.loss(gate.pooled(q, k, lengths), q, k, lengths).backward()
        optimizer.step()
    return before, kept_mass(student, config, seed)["taught"]
