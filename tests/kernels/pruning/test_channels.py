"""Taking channels out gives the same answers as not reading them, whatever the net is made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torchvision.models
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.compression.pruning.channel_pruner import ChannelPruner, PruningConfig
from kernels.compression.pruning.errors import PruningError
from kernels.compression.pruning.propagate import channel_graph
from kernels.compression.pruning.surgery import Surgery
from models.defect_net import DefectNet, DefectNetShape
from tests.kernels.pruning.nets import Flat, Shared, Unet, Words, lively, silent

ANY = PruningConfig(multiple=1, criterion="random", scope="layer")


def same_as_silent(net, example, ratio=0.4, config=ANY):
    """Prune; check against the silent twin; return the result."""
    pruner = ChannelPruner(net, example, ratio, config)
    pruned = pruner.prune()
    graph = channel_graph(net, (example,))
    twin = silent(net, graph, pruned.surgeries[0])
    with torch.no_grad():
        answers, wanted, whole = pruned.model(example), twin(example), net(example)
    torch.testing.assert_close(answers, wanted, rtol=1e-4, atol=1e-5)
    assert (answers - whole).abs().max() > 1e-3
    assert pruned.after.parameters == sum(p.numel() for p in pruned.model.parameters())
    assert pruned.before.parameters == sum(p.numel() for p in net.parameters())
    return pruned


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5",
     "squeezenet1_1", "resnext50_32x4d", "efficientnet_b0", "regnet_y_400mf", "mnasnet0_5"],
)  # fmt: skip
def test_nets_of_torchvision(name):
    torch.manual_seed(0)
    net = lively(getattr(torchvision.models, name)(weights=None, num_classes=10))
    pruned = same_as_silent(net, torch.randn(1, 3, 64, 64), config=PruningConfig())
    assert 0.4 <= 1 - pruned.after.parameters / pruned.before.parameters <= 0.42
    # Nothing of such nets is held but what goes in and comes out.
    assert set(pruned.held) == {"output of the net"}


def test_what_sits_behind_an_attention_stays_and_the_rest_goes():
    net = lively(torchvision.models.vit_b_32(weights=None, image_size=64, num_classes=10))
    pruned = same_as_silent(net, torch.randn(1, 3, 64, 64), 0.3, PruningConfig())
    assert any("MultiheadAttention" in why for why in pruned.held)
    assert pruned.model.encoder.layers[0].mlp[0].out_features < 3072
    assert pruned.model.hidden_dim == 768


@pytest.mark.parametrize("net", [Unet, Shared, Flat])
def test_convolutions_of_every_kind(net):
    torch.manual_seed(1)
    same_as_silent(lively(net()), torch.randn(2, 3, 8, 8))


def test_groups_stay_of_one_size():
    torch.manual_seed(1)
    pruned = same_as_silent(lively(Flat()), torch.randn(2, 3, 8, 8), 0.5)
    grouped, depthwise = pruned.model.body[2], pruned.model.body[5]
    assert grouped.groups == 4
    assert grouped.out_channels % 4 == 0
    assert depthwise.groups == depthwise.in_channels == grouped.out_channels < 32
    assert depthwise.out_channels == 2 * depthwise.in_channels
    assert pruned.model.head[0].in_features == depthwise.out_channels * 4


def test_norms_over_groups_keep_their_groups():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 2, 1))
    pruned = ChannelPruner(net, torch.randn(2, 3, 4, 4), 0.4, ANY).prune()
    assert pruned.model[1].num_channels == pruned.model[0].out_channels in {4, 8}
    assert pruned.model(torch.randn(2, 3, 4, 4)).shape == (2, 2, 4, 4)


def test_tokens():
    torch.manual_seed(2)
    words = torch.randint(0, 50, (3, 7))
    pruned = ChannelPruner(Words(), words, 0.4, ANY).prune()
    assert pruned.model(words).shape == (3, 4)
    width = pruned.model.embedding.embedding_dim
    assert width < 32
    assert pruned.model.norm.normalized_shape == (width,)
    assert pruned.model.inner.in_features == pruned.model.outer.out_features == width


def test_the_net_of_the_inspection():
    torch.manual_seed(3)
    net = lively(DefectNet(DefectNetShape(8, (16, 24, 32), (1, 1, 1), 16)))
    images = torch.rand(2, 3, 64, 64)

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
            self.head = nn.Conv2d(16, 1, 1)

        def forward(self, x):
            return self.head(self.net(x).dense)

    same_as_silent(Dense().eval(), images)


@st.composite
def chains(draw):
    """Return the steps of a random net, each (kind, number)."""
    kinds = ["conv", "grouped", "depthwise", "norm", "residual", "concat", "chunk", "gate", "pool"]
    return draw(
        st.lists(st.tuples(st.sampled_from(kinds), st.integers(1, 4)), min_size=1, max_size=6)
    )


class Chain(nn.Module):
    """A net of random steps, each of which keeps or changes the channels."""

    def __init__(self, steps):
        super().__init__()
        self.kinds, width = [kind for kind, _ in steps], 8
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.parts = nn.ModuleList()
        for kind, number in steps:
            made = width
            if kind == "conv":
                made = 4 * number
                self.parts.append(nn.Conv2d(width, made, 3, padding=1))
            elif kind == "grouped":
                made = 4 * number
                self.parts.append(nn.Conv2d(width, made, 1, groups=2))
            elif kind == "depthwise":
                self.parts.append(nn.Conv2d(width, width, 3, padding=1, groups=width))
            elif kind == "norm":
                self.parts.append(nn.BatchNorm2d(width))
            elif kind == "gate":
                self.parts.append(nn.Conv2d(width, width, 1))
            elif kind == "concat":
                self.parts.append(nn.Conv2d(width, 4, 1))
                made = width + 4
            elif kind == "residual":
                self.parts.append(nn.Conv2d(width, width, 3, padding=1))
            else:
                self.parts.append(nn.Identity())
                made = width // 2 if kind == "chunk" else width
            width = made
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.first(x)
        for kind, part in zip(self.kinds, self.parts, strict=True):
            if kind == "residual":
                x = x + part(torch.relu(x))
            elif kind == "concat":
                x = torch.cat([part(x), x], dim=1)
            elif kind == "gate":
                x = x * torch.sigmoid(part(x.mean(dim=(2, 3), keepdim=True)))
            elif kind == "chunk":
                a, b = x.chunk(2, dim=1)
                x = torch.relu(a) + b
            elif kind == "pool":
                x = nn.functional.avg_pool2d(x, 3, 1, 1)
            else:
                x = torch.relu(part(x))
        return self.last(x.mean(dim=(2, 3)))


@settings(max_examples=25, deadline=None)
@given(chains(), st.sampled_from([0.1, 0.3, 0.6]), st.integers(0, 5))
def test_any_net_answers_as_its_silent_twin(steps, ratio, seed):
    width = 8
    for kind, number in steps:  # widths that groups and halves can be made of
        if kind in {"chunk", "grouped"} and width % 2:
            return
        width = {"conv": 4 * number, "grouped": 4 * number, "concat": width + 4}.get(kind, width)
        width = width // 2 if kind == "chunk" else width
    torch.manual_seed(seed)
    net = lively(Chain(steps), seed)
    x = torch.randn(2, 3, 6, 6)
    config = PruningConfig(multiple=1, criterion="random", scope="layer", least=0, seed=seed)
    graph = channel_graph(net, (x,))
    try:
        pruned = ChannelPruner(net, x, ratio, config).prune()
    except PruningError as error:
        assert "be taken out" in str(error)  # noqa: PT017
        return
    with torch.no_grad():
        wanted = silent(net, graph, pruned.surgeries[0])(x)
        torch.testing.assert_close(pruned.model(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_plan_makes_a_fresh_net_take_the_weights():
    torch.manual_seed(0)
    net = lively(Shared())
    x = torch.randn(2, 3, 8, 8)
    config = PruningConfig(multiple=1, rounds=2)
    pruned = ChannelPruner(net, x, 0.5, config).prune()
    fresh = Shared().eval()
    for surgery in pruned.surgeries:
        Surgery.from_json(json.loads(json.dumps(surgery.to_json()))).apply(fresh)
    fresh.load_state_dict(pruned.model.state_dict())
    assert torch.equal(fresh(x), pruned.model(x))


def test_the_net_given_stays_whole():
    net = lively(Shared())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ChannelPruner(net, torch.randn(1, 3, 8, 8), 0.5, ANY).prune()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_multiplications_are_those_of_the_layers():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    pruned = ChannelPruner(net, torch.randn(2, 3, 6, 6), 0.4, ANY).prune()
    assert pruned.before.multiplications == 2 * (8 * 3 * 9 * 36 + 8 * 36 * 5)
    width = pruned.model[0].out_channels
    assert pruned.after.multiplications == 2 * (width * 3 * 9 * 36 + width * 36 * 5)
    assert np.isclose(pruned.after.parameters, width * 28 + width * 36 * 5 + 5)
