"""Nets for the tests of pruning, and a net's twin in which the same channels are only silent."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn


class Unet(nn.Module):
    """Down, up again by transposed convolution and pixel shuffle, concatenated."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        )
        self.deep = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.PReLU(24))
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.sharp = nn.Sequential(nn.Conv2d(24, 32, 1), nn.PixelShuffle(2))
        self.last = nn.Conv2d(16 + 16 + 8, 2, 3, padding=1)

    def forward(self, x):
        first = self.down(x)
        deep = self.deep(first)
        return self.last(torch.cat([first, self.up(deep), self.sharp(deep)], dim=1))


class Shared(nn.Module):
    """One block called twice, halves that are gated, a mean over places, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.wide = nn.Conv2d(16, 32, 1)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.first(x)) * self.scale
        x = x + torch.relu(self.block(x))
        x = x + torch.relu(self.block(x))
        left, right = self.wide(x).chunk(2, dim=1)
        return self.last((left * torch.sigmoid(right)).mean(dim=(2, 3)))


class Words(nn.Module):
    """Embeddings, a layer norm, a residual stream of tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.norm = nn.LayerNorm(32)
        self.inner, self.outer = nn.Linear(32, 64), nn.Linear(64, 32)
        self.last = nn.Linear(32, 4)

    def forward(self, words):
        x = self.embedding(words)
        x = x + self.outer(torch.nn.functional.gelu(self.inner(self.norm(x))))
        return self.last(x.mean(dim=1))


class Flat(nn.Module):
    """Convolutions whose map is laid flat before the linear layers, and group convolutions."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, groups=4),
            nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, groups=32),
            nn.AdaptiveAvgPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(64 * 4, 20), nn.ReLU(), nn.Linear(20, 3))

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def lively(net, seed=0):
    """Return the net in evaluation mode with norms as after training, and no weight at 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1 and parameter.std() < 1e-4:
                parameter.normal_(0.5, 0.2, generator=generator)
    return net.eval()


def silent(net, graph, surgery):
    """Return a copy of the net that no longer reads the channels a surgery takes out."""
    twin = copy.deepcopy(net)
    for (tensor, dim), slot in graph.slots.items():
        kept = surgery.kept.get(tensor, {}).get(dim)
        if slot.role == "reads" and kept is not None:
            weight = twin.get_parameter(tensor).data
            gone = np.setdiff1d(np.arange(weight.shape[dim]), kept)
            weight.index_fill_(dim, torch.from_numpy(gone), 0.0)
    return twin
