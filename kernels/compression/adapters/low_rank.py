"""Low-rank additions to linear layers, convolutions and embeddings (LoRA).

The layer's weights W stay as they are; trained is W + alpha / rank * B A, where A brings the input
to ``rank`` numbers and B those to the output (Hu et al. 2021, https://arxiv.org/abs/2106.09685).
B begins at zero, so that training begins at the net as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class AdapterError(ValueError):
    """An adapter that does not fit a net; says where and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What an adapter is made of.

    Attributes:
        rank: Numbers between A and B; less where a layer is narrower.
        alpha: The addition is scaled by alpha / rank.
        dropout: Share of the input that training leaves out.
        targets: Names of layers, or the ends of them (``fc``); empty: all that can take one.
        norms: Whether the adapter has batch norms of its own, trained and with the statistics of
            its data (Chang et al. 2019, https://arxiv.org/abs/1906.03950): for another camera or
            line, whose maps have other means than those the net has counted.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ()
    norms: bool = False

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}; twice the rank is usual")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class Addition(nn.Module):
    """B A of one layer.

    Attributes:
        down: A, [rank * groups, read, ...]; of embeddings [words, rank].
        up: B, [made, rank].
        scale: alpha / rank.
        dropout: Share of the input left out in training.
    """

    def __init__(self, layer: nn.Module, config: LoraConfig) -> None:
        super().__init__()
        shape, groups = shape_of(layer), getattr(layer, "groups", 1)
        self.dropout = config.dropout
        if isinstance(layer, nn.Embedding):
            # Row i of A is what word i adds.
            rank = min(config.rank, *shape)
            down, up = torch.randn(shape[0], rank) * 0.02, torch.zeros(shape[1], rank)
        else:
            rank = min(config.rank, shape[0] // groups, math.prod(shape[1:]))
            down, up = torch.empty(rank * groups, *shape[1:]), torch.zeros(shape[0], rank)
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.scale = config.alpha / rank
        held = (*layer.parameters(), *layer.buffers())
        like = next((t for t in held if t.is_floating_point()), down)
        self.down = nn.Parameter(down.to(like.device, like.dtype))
        self.up = nn.Parameter(up.to(like.device, like.dtype))

    def delta(self, layer: nn.Module) -> Tensor:
        """Return scale * B A in the shape of the layer's weight, computed in float64."""
        down, up = self.down.detach().double(), self.up.detach().double()
        if isinstance(layer, nn.Embedding):
            delta: Tensor = self.scale * down @ up.T
            if layer.padding_idx is not None:
                delta[layer.padding_idx] = 0
            return delta
        groups = getattr(layer, "groups", 1)
        a = down.reshape(groups, -1, math.prod(down.shape[1:]))
        b = up.reshape(groups, -1, up.shape[1])
        return (self.scale * b @ a).reshape(shape_of(layer))

    def forward(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what is added to the layer's output for its input."""
        if isinstance(layer, nn.Embedding):
            added: Tensor = self.scale * functional.embedding(x, self.down) @ self.up.T
            if layer.padding_idx is not None:
                added = added * (x != layer.padding_idx)[..., None]
            return added
        if self.dropout:
            x = functional.dropout(x, self.dropout, self.training)
        if self.down.dim() > 2:
            return self.scale * self._convolved(layer, x)
        return self.scale * functional.linear(functional.linear(x, self.down), self.up)

    def _convolved(self, layer: Any, x: Tensor) -> Tensor:
        places = self.down.dim() - 2
        convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[places - 1]
        padding: Any = layer.padding
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            x = functional.pad(x, layer._reversed_padding_repeated_twice, layer.padding_mode)  # noqa: SLF001
            padding = 0
        inner = convolve(x, self.down, None, layer.stride, padding, layer.dilation, layer.groups)
        up = self.up.view(*self.up.shape, *[1] * places)
        out: Tensor = convolve(inner, up, None, 1, 0, 1, layer.groups)
        return out


class Adapted(nn.Module):
    """A layer with the additions of any number of adapters, of which one is in use, or none."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.additions = nn.ModuleDict()
        self.in_use = ""

    @property
    def weight(self) -> Any:
        """The layer's own weights: modules that look past `forward` find them."""
        return self.layer.weight

    @property
    def bias(self) -> Any:
        """The layer's own bias."""
        return getattr(self.layer, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, with the addition of the adapter in use."""
        out: Tensor = self.layer(x)
        if self.in_use in self.additions:
            out = out + self.additions[self.in_use](self.layer, x)
        return out


class Still(nn.Module):
    """A batch norm that keeps its statistics while adapters are trained around it.

    In training it would measure those of the few images of a batch, answer by them, and leave the
    net changed for every other adapter. An adapter may have a norm of its own in its place.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.training = layer.training
        self.layer = layer.eval()
        self.own = nn.ModuleDict()
        self.in_use = ""

    def train(self, mode: bool = True) -> Still:  # noqa: FBT001, FBT002 - as torch has it
        """Let the adapters' norms train; the net's stays in evaluation mode."""
        super().train(mode)
        self.layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the norm of the adapter in use, or of the net's."""
        own = self.in_use in self.own
        out: Tensor = self.own[self.in_use](x) if own else self.layer(x)
        return out


def shape_of(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's weight; packed layers know it without unpacking."""
    shape = getattr(layer, "shape", None)
    return tuple(shape if shape is not None else cast("nn.Linear", layer).weight.shape)
