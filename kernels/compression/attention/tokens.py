"""Drops tokens that little attention goes to, behind a layer of a transformer.

What a token receives is the mean attention of all heads and queries. Either so many tokens stay as
a share says, or for each input as few as receive a share of all attention: inputs with one clear
spot keep few, inputs whose attention is spread keep many (as EViT and DynamicViT do, Liang et al.
2022, https://arxiv.org/abs/2202.07800; Rao et al. 2021, https://arxiv.org/abs/2106.02034).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.compression.attention.heads import SlimAttention
from kernels.compression.pruning.errors import PruningError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfig:
    """Which tokens stay.

    Attributes:
        keep: Share of the tokens, of each input alike; 0: by ``mass``.
        mass: Share of the attention that those which stay receive, for each input by itself.
        first: Tokens at the beginning that always stay, such as the class token.
    """

    keep: float = 0.0
    mass: float = 0.0
    first: int = 1

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if (self.keep > 0) == (self.mass > 0) or not 0 <= self.keep <= 1 or not 0 <= self.mass <= 1:
            raise ValueError(
                f"give keep or mass, a share in (0, 1], got keep={self.keep} and mass={self.mass}"
            )
        if self.first < 0:
            raise ValueError(f"first must be at least 0, got {self.first}")


class FewerTokens(nn.Module):
    """A layer of a transformer, behind which tokens are dropped.

    Attributes:
        layer: The layer; [n, length, width] to the same.
        attention: Its attention, which is asked what each token receives.
        config: Which tokens stay.
        left: Tokens that each input of the last call needed; all kept as many as the largest.
    """

    def __init__(self, layer: nn.Module, attention: SlimAttention, config: TokenConfig) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        self._attention = (attention,)
        self.left: Tensor | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the layer gives of the tokens that stay, in their order.

        Of inputs that differ in how many stay, all keep as many as the one that keeps most.
        """
        received: list[Tensor] = []
        attention = self._attention[0]
        attention.seen = lambda each: received.append(each.mean((1, 2)))
        try:
            out: Tensor = self.layer(x, *args, **kwargs)
        finally:
            attention.seen = None
        chosen = self.chosen(received[0])
        return out.gather(1, chosen[..., None].expand(-1, -1, out.shape[-1]))

    def chosen(self, received: Tensor) -> Tensor:
        """Return the places of the tokens that stay, int64 [n, kept], ascending.

        Args:
            received: Attention that each token receives, float [n, length].
        """
        config, length = self.config, received.shape[1]
        ranked = received.clone()
        ranked[:, : config.first] = torch.inf
        order = ranked.argsort(dim=1, descending=True, stable=True)
        if config.keep:
            least = max(config.first, 1)
            self.left = torch.full((len(received),), max(least, round(config.keep * length)))
        else:
            shares = received.gather(1, order)
            before = shares.cumsum(1) - shares
            goes_on = before < config.mass * received.sum(1, keepdim=True)
            goes_on[:, : max(config.first, 1)] = True
            self.left = goes_on.sum(1)
        return order[:, : int(self.left.max())].sort(1).values


def fewer_tokens(model: nn.Module, layers: dict[str, str], config: TokenConfig) -> None:
    """Drop tokens behind some layers, in place.

    Masks of padding are followed within a layer; behind it, tokens are others than the mask speaks
    of, so nets that give every layer a mask (``nn.TransformerEncoder``) are not for this.

    Args:
        model: The net; inputs of the layers are [n, length, width].
        layers: Layer -> name of the attention inside it, such as ``encoder.layers.1`` ->
            ``self_attention``.
        config: Which tokens stay, the same behind each layer.

    Raises:
        PruningError: When there is no such layer or attention.
    """
    for name, inner in layers.items():
        try:
            layer = model.get_submodule(name)
            attention: nn.Module = layer.get_submodule(inner)
        except AttributeError as error:
            raise PruningError(f"the net has no {name}.{inner}") from error
        if isinstance(attention, nn.MultiheadAttention):
            attention = SlimAttention(attention)
            layer.set_submodule(inner, attention)
        if not isinstance(attention, SlimAttention) or not attention.batch_first:
            raise PruningError(f"{name}.{inner} is no attention with batch_first=True")
        model.set_submodule(name, FewerTokens(layer, attention, config))
