"""A small transformer over tokens of 16 x 16 pixels, for images of any size."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and a dense part, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the layers."""
        super().__init__()
        self.heads, self.width = heads, width
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [n, length, width] of tokens."""
        y = self.norm(x)
        q, k, v = (
            layer(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        share = torch.softmax(q @ k.mT * (self.width // self.heads) ** -0.5, dim=-1)
        x = x + self.out((share @ v).transpose(1, 2).flatten(2))
        found: Tensor = x + self.dense(self.norm_2(x))
        return found


class Patches(nn.Module):
    """Four convolutions to tokens, blocks, the mean of what they give, classes.

    Convolutions instead of one product learn in fewer steps (Xiao et al. 2021,
    https://arxiv.org/abs/2106.14881). Places are not told: which kind of surface it is does not
    depend on them.
    """

    def __init__(self, classes: int, width: int = 192, heads: int = 3, depth: int = 4) -> None:
        """Make the layers."""
        super().__init__()
        sizes = [3, *(width // share for share in (8, 4, 2, 1))]
        stem: list[nn.Module] = []
        for given, made in pairwise(sizes):
            conv = nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False)
            stem += [conv, nn.BatchNorm2d(made), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes] of images [n, 3, h, w]."""
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        found: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return found
