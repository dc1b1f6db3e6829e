"""What people write in forward(): pruned right, or held, and never pruned wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.pruning.channel_pruner import ChannelPruner, PruningConfig
from kernels.compression.pruning.errors import PruningError
from kernels.compression.pruning.propagate import channel_graph
from tests.kernels.pruning.nets import lively, silent


class Odd(nn.Module):
    """Layers of 16 channels, what ``body`` does with them, and a layer that reads the result."""

    def __init__(self, body, width=16, read="conv"):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 16, 3, padding=1) for _ in range(3))
        self.one = nn.Conv2d(3, 1, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.places = nn.Parameter(torch.randn(1, 16, 8, 12))
        self.scale = nn.Parameter(torch.rand(16) + 0.5)
        self.words = nn.Embedding(20, 16)
        self.register_buffer("order", torch.randperm(16))
        self.old = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 3, padding=1))
        self.body = body
        self.last = nn.Conv2d(width, 4, 3) if read == "conv" else nn.Linear(width, 4)

    def forward(self, x):
        return self.last(self.body(self, x))


def shuffled(net, x):
    y = net.a(x)
    b, c, h, w = y.shape
    return y.view(b, -1, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)


def written_shuffle(net, x):
    y = net.a(x)
    b, c, h, w = y.shape
    return y.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)


def filled(net, x):
    z = torch.zeros(net.a(x).shape)
    z.add_(net.b(x))
    return z


def added(net, x):
    y = net.a(x)
    y += net.b(x)
    return y.mul_(2)


FREE = {
    "data": lambda net, x: net.a(x) * net.b(x).data,
    "where": lambda net, x: torch.where(net.c(x).relu() == 0, net.a(x), net.b(x)),
    "gate of one channel": lambda net, x: net.a(x) * torch.sigmoid(net.one(x)),
    "learned number": lambda net, x: net.a(x) * net.gain,
    "part of a parameter": lambda net, x: net.a(x) + net.places[..., : x.shape[-1]],
    "scale by view": lambda net, x: net.a(x) * net.scale.view(1, -1, 1, 1),
    "in place": added,
    "shuffle": written_shuffle,
    "with itself": lambda net, x: torch.cat([net.a(x)] * 2, 1)[:, :, 1:],
    "border": lambda net, x: functional.pad(net.a(x), (1, 1, 1, 1), value=-1.0),
    "mirror": lambda net, x: functional.pad(net.a(x), (1, 1, 1, 1), mode="reflect"),
    "axis": lambda net, x: net.a(x) - torch.mean(input=net.b(x), axis=(2, 3), keepdim=True),
    "norm over places": lambda net, x: net.a(x) / (net.a(x).norm(2, (2, 3), keepdim=True) + 1),
    "upsampled": lambda net, x: functional.interpolate(net.a(x), scale_factor=2.0),
}
HELD = {
    "filled in place": filled,
    "equal to the largest": lambda net, x: net.b(x) * (net.a(x) == net.a(x).amax(1, keepdim=True)),
    "shuffle by sizes": shuffled,
    "number of channels": lambda net, x: net.a(x) * net.a(x).shape[1] ** -0.5,
    "range of channels": lambda net, x: (
        net.a(x) * torch.arange(net.a(x).shape[1]).view(1, -1, 1, 1)
    ),
    "constant": lambda net, x: net.a(x) * torch.linspace(0, 1, 16).view(1, -1, 1, 1),
    "by an index": lambda net, x: net.a(x)[:, net.order],
    "index_select": lambda net, x: net.a(x).index_select(1, net.order),
    "spread over others": lambda net, x: net.one(x).expand_as(net.a(x)),
    "first half": lambda net, x: torch.cat(
        [net.a(x)[:, : net.a(x).shape[1] // 2], net.b(x)[:, :8]], 1
    ),
    "weight norm": lambda net, x: net.old(x),
}
READ_BY_LINEAR = {
    "largest place": lambda net, x: net.a(x).flatten(2).max(-1)[0],
    "largest by name": lambda net, x: torch.max(net.a(x).flatten(2), 2).values,
    "turned": lambda net, x: net.a(x).flatten(2).mT,
}  # fmt: skip


def check(body, **kwargs):
    """Return how many cuts went through; each must answer as its silent twin."""
    done = 0
    for seed in range(4):
        torch.manual_seed(seed)
        net = lively(Odd(body, **kwargs), seed)
        x = torch.randn(2, 3, 8, 8)
        width = net(x)  # it runs
        assert width.shape[0] == 2
        scope = "layer" if seed % 2 else "global"
        config = PruningConfig(multiple=1, criterion="random", scope=scope, seed=seed)
        try:
            pruned = ChannelPruner(net, x, 0.04, config).prune()
        except PruningError as error:
            assert "be taken out" in str(error)  # noqa: PT017
            continue
        graph = channel_graph(net, (x,))
        with torch.no_grad():
            wanted = silent(net, graph, pruned.surgeries[0])(x)
            torch.testing.assert_close(pruned.model(x), wanted, rtol=1e-4, atol=1e-4)
        done += 1
    return done


@pytest.mark.parametrize("name", FREE)
def test_pruned_right(name):
    assert check(FREE[name], width=32 if name == "with itself" else 16) == 4


@pytest.mark.parametrize("name", HELD)
def test_never_pruned_wrong(name):
    check(HELD[name])


@pytest.mark.parametrize("name", READ_BY_LINEAR)
def test_maps_that_linear_layers_read(name):
    assert check(READ_BY_LINEAR[name], read="linear") == 4


class Tied(nn.Module):
    """An embedding whose weights make the answers, too."""

    def __init__(self):
        super().__init__()
        self.words, self.inner = nn.Embedding(20, 16), nn.Linear(16, 32)
        self.outer = nn.Linear(32, 16)

    def forward(self, words):
        x = self.words(words)
        x = x + self.outer(torch.relu(self.inner(x)))
        return functional.linear(x, self.words.weight)


def test_weights_that_a_function_reads_stay():
    net = Tied()
    words = torch.randint(0, 20, (2, 5))
    pruned = ChannelPruner(net, words, 0.3, PruningConfig(multiple=1)).prune()
    assert pruned.model(words).shape == (2, 5, 20)
    assert pruned.model.words.embedding_dim == 16
    assert pruned.model.inner.out_features < 32
    assert any("words.weight" in why or "linear" in why for why in pruned.held)
