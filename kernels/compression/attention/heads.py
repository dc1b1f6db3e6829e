"""Takes heads out of attention layers: whole rows and columns of their projections.

Which go is told by the entropy of a head's attention (a head that looks everywhere alike adds a
mean), or by the change of the loss to first order of a gate on the head's output (Michel et al.
2019, https://arxiv.org/abs/1905.10650).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.compression.pruning.errors import PruningError
from kernels.runtime.runner import Loss

HeadCriterion = Literal["taylor", "entropy"]
HEAD_CRITERIA: tuple[HeadCriterion, ...] = ("taylor", "entropy")


class SlimAttention(nn.Module):
    """`torch.nn.MultiheadAttention` with any number of heads of any width.

    Attributes:
        num_heads: Heads.
        head_dim: Width of each.
        inside: Projections to queries, keys and values, rows of each head beside each other.
        outside: Projection of all heads' outputs.
        batch_first: Inputs are [n, length, width]; else [length, n, width].
        gate: Factor of each head's output, for criteria; None: 1.
        seen: Called with each head's attention [n, heads, queries, keys].
    """

    in_proj_bias = None
    _qkv_same_embed_dim = False  # layers of torch must not look past this module's forward

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over the weights of an attention layer.

        Raises:
            PruningError: When it has keys or values of their own widths, or learned extra ones.
        """
        super().__init__()
        packed: Tensor | None = attention.in_proj_weight
        if packed is None or attention.bias_k is not None or attention.add_zero_attn:
            raise PruningError(
                "attention with keys or values of their own widths, bias_k or add_zero_attn cannot "
                "lose heads; keep it whole"
            )
        width = attention.embed_dim
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.batch_first, self.dropout = attention.batch_first, attention.dropout
        bias = attention.in_proj_bias
        like = {"device": packed.device, "dtype": packed.dtype}
        inside = [nn.Linear(width, width, bias is not None, **like) for _ in range(3)]
        self.inside = nn.ModuleList(inside)
        self.outside = nn.Linear(width, width, attention.out_proj.bias is not None, **like)
        self.gate: Tensor | None = None
        self.seen: Callable[[Tensor], None] | None = None
        with torch.no_grad():
            for place, layer in enumerate(inside):
                layer.weight.copy_(packed[place * width : (place + 1) * width])
                if bias is not None:
                    layer.bias.copy_(bias[place * width : (place + 1) * width])
            self.outside.load_state_dict(attention.out_proj.state_dict())
        self.inside.requires_grad_(packed.requires_grad)
        self.outside.requires_grad_(attention.out_proj.weight.requires_grad)
        self.train(attention.training)

    def keep(self, heads: list[int]) -> None:
        """Keep some heads, in place."""
        rows = torch.cat([torch.arange(self.head_dim) + h * self.head_dim for h in heads])
        rows = rows.to(self.outside.weight.device)
        for layer in self.inside:
            assert isinstance(layer, nn.Linear)  # noqa: S101 - narrows the type
            layer.weight = _kept(layer.weight, rows, 0)
            if layer.bias is not None:
                layer.bias = _kept(layer.bias, rows, 0)
            layer.out_features = len(rows)
        self.outside.weight = _kept(self.outside.weight, rows, 1)
        self.outside.in_features = len(rows)
        self.num_heads = len(heads)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return each head's attention [n, heads, queries, keys] of inputs [n, length, width]."""
        q, k = (self._heads(layer(x)) for layer, x in zip(self.inside, (query, key), strict=False))
        scores = q @ k.mT / math.sqrt(self.head_dim)
        if mask is not None:
            scores = scores + mask
        return scores.softmax(-1)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 - as torch has it
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `torch.nn.MultiheadAttention` does, for inputs in batches."""
        del is_causal  # a hint; the mask is given beside it
        inputs = [query, key, value]
        if not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        mask = self.mask(attn_mask, key_padding_mask, inputs[0])
        if self.seen is not None:
            self.seen(self.weights(inputs[0], inputs[1], mask).detach())
        q, k, v = (self._heads(layer(x)) for layer, x in zip(self.inside, inputs, strict=True))
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        if self.gate is not None:
            out = out * self.gate.view(1, -1, 1, 1)
        out = self.outside(out.transpose(1, 2).flatten(2))
        found = None
        if need_weights:
            found = self.weights(inputs[0], inputs[1], mask)
            found = found.mean(1) if average_attn_weights else found
        return (out if self.batch_first else out.transpose(0, 1)), found

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def mask(self, mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Return both masks as one that is added to scores; None where there is neither."""
        total: Tensor | None = None
        if mask is not None:
            total = _added(mask, like)
            if total.dim() == 3:  # [n * heads, ...]: of torch's own number of heads
                total = total.view(-1, self.num_heads, *total.shape[1:])
        if padding is not None:
            padded = _added(padding, like)[:, None, None]
            total = padded if total is None else total + padded
        return total


def _kept(parameter: Tensor, places: Tensor, dim: int) -> nn.Parameter:
    chosen = parameter.detach().index_select(dim, places)
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of a net.

    Attributes:
        model: The net without the others, in evaluation mode; attention layers are `SlimAttention`.
        kept: Layer -> heads that are left, by their number before.
        scores: Layer -> importance of each head that was there.
    """

    model: nn.Module
    kept: dict[str, list[int]]
    scores: dict[str, list[float]]


def prune_heads(
    model: nn.Module,
    ratio: float,
    batches: Iterable[Any],
    loss: Loss[Any],
    criterion: HeadCriterion = "taylor",
) -> Heads:
    """Return a copy of a net without its least important heads; each layer keeps one.

    Args:
        model: A net with `torch.nn.MultiheadAttention` in it.
        ratio: Share of all heads that goes.
        batches: Training batches.
        loss: As the training has it; for ``entropy`` it only runs the net.
        criterion: What goes first.

    Raises:
        PruningError: When there is no such layer, no batch, or not as many heads to take.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must lie between 0 and 1, got {ratio}")
    if criterion not in HEAD_CRITERIA:
        raise ValueError(f"criterion {criterion!r} is none of {', '.join(HEAD_CRITERIA)}")
    if isinstance(model, nn.MultiheadAttention):
        raise PruningError("the net is a single attention layer; put it into nn.Sequential first")
    made = copy.deepcopy(model)
    layers = _slimmed(made)
    if not layers:
        raise PruningError("the net has no torch.nn.MultiheadAttention to take heads from")
    scores = _scores(made, layers, batches, loss, criterion)
    count = sum(layer.num_heads for layer in layers.values())
    wanted = round(ratio * count)
    if wanted > count - len(layers):
        raise PruningError(
            f"{wanted} of {count} heads cannot go, each of {len(layers)} layers keeps one; at most "
            f"{(count - len(layers)) / count:.2f}"
        )
    kept = {name: list(range(layer.num_heads)) for name, layer in layers.items()}
    order = sorted((s, name, head) for name, each in scores.items() for head, s in enumerate(each))
    for _, name, head in order:
        if wanted and len(kept[name]) > 1:
            kept[name].remove(head)
            wanted -= 1
    for name, layer in layers.items():
        layer.keep(kept[name])
    return Heads(made, kept, scores)


def _slimmed(model: nn.Module) -> dict[str, SlimAttention]:
    found = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.MultiheadAttention):
            found[name] = SlimAttention(layer)
            model.set_submodule(name, found[name])
    return found


def _scores(
    model: nn.Module,
    layers: dict[str, SlimAttention],
    batches: Iterable[Any],
    loss: Loss[Any],
    criterion: HeadCriterion,
) -> dict[str, list[float]]:
    """Return the importance of each head."""
    model.eval()
    totals = {name: torch.zeros(layer.num_heads).double() for name, layer in layers.items()}
    seen = 0
    for batch in batches:
        seen += 1
        if criterion == "entropy":
            with torch.no_grad(), _entropies(layers) as found:
                loss(model, batch)
            # A head that looks at one place says most.
            for name, entropy in found.items():
                totals[name] += 1 - entropy
            continue
        for layer in layers.values():
            layer.gate = torch.ones_like(
                layer.outside.weight[0, :1].expand(layer.num_heads), requires_grad=True
            )
        summed, items = loss(model, batch)
        gates = [layer.gate for layer in layers.values() if layer.gate is not None]
        slopes = torch.autograd.grad(summed / max(items, 1), gates, allow_unused=True)
        for name, slope in zip(layers, slopes, strict=True):
            if slope is not None:
                totals[name] += slope.double().square().cpu()
    for layer in layers.values():
        layer.gate = None
    if not seen:
        raise PruningError("heads are judged on batches, got none; give some of the training's")
    return {name: (total / seen).tolist() for name, total in totals.items()}


@contextmanager
def _entropies(layers: dict[str, SlimAttention]) -> Iterator[dict[str, Tensor]]:
    """Collect each head's mean entropy, as a share of the largest possible."""
    found: dict[str, Tensor] = {}

    def see(name: str, attention: Tensor) -> None:
        attention = attention.double()
        entropy = -(attention * attention.clamp_min(1e-30).log()).sum(-1)
        # Of keys that a mask leaves.
        most = (attention > 0).sum(-1).clamp_min(2).double().log()
        found[name] = (entropy / most).mean((0, 2)).cpu()

    for name, layer in layers.items():
        layer.seen = partial(see, name)
    try:
        yield found
    finally:
        for layer in layers.values():
            layer.seen = None
