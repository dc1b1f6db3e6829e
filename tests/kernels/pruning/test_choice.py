"""What is taken out: the criteria, the budgets, the rounds, and what is refused."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.pruning import channel_pruner
from kernels.compression.pruning.channel_pruner import ChannelPruner, PruningConfig
from kernels.compression.pruning.channel_sets import ChannelSets
from kernels.compression.pruning.criteria import CRITERIA, importance
from kernels.compression.pruning.errors import PruningError
from kernels.compression.pruning.propagate import channel_graph
from kernels.compression.pruning.surgery import Surgery
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from tests.kernels.pruning.nets import Shared, lively

X = torch.zeros(1, 3, 8, 8)


def small(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2),
    )  # fmt: skip


def batch(index):
    generator = torch.Generator().manual_seed(index)
    labels = torch.arange(32) % 2
    images = torch.randn(32, 3, 8, 8, generator=generator) * 0.5
    images[labels == 1, 0] += torch.linspace(-1, 1, 8)
    return images, labels


def loss(model, pair):
    images, labels = pair
    return functional.cross_entropy(model(images), labels, reduction="sum"), len(labels)


def train(model, steps=60):
    config = RunConfig(steps=steps, optimizer=OptimizerConfig(learning_rate=0.01))
    run(model, batch, loss, config)


def accuracy(model):
    images, labels = batch(10_000)
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "random"])
def test_channels_that_do_nothing_go_first(criterion):
    net = small()
    train(net)
    dead = torch.tensor([1, 4, 6, 7, 9, 12, 13, 15])
    with torch.no_grad():
        for place in (0, 3):
            net[place].weight[dead] *= 1e-6
            net[place].bias[dead] = 0
            net[place + 1].weight[dead] *= 1e-6
            net[place + 1].bias[dead] = 0
        net[3].weight[:, dead] *= 1e-6
        net[8].weight[:, dead] *= 1e-6
    config = PruningConfig(criterion=criterion, scope="layer", multiple=1)
    pruned = ChannelPruner(net, X, 0.6, config).prune(batches=batch, loss=loss)
    kept = {
        n: dims[0] for n, dims in pruned.surgeries[0].kept.items() if n in {"0.weight", "3.weight"}
    }
    assert kept.keys() == {"0.weight", "3.weight"}
    alive = set(range(16)) - set(dead.tolist())
    assert all(alive >= set(each) or alive <= set(each) for each in kept.values())


def test_the_change_of_the_loss_is_that_of_gates():
    net = lively(Shared()).double()
    images, labels = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 0])
    sets = ChannelSets(net, channel_graph(net, (images,)))
    scores = importance("taylor", net, sets, batches=[(images, labels)], loss=loss)
    # The channels of the gate's left half: a gate in their place, by finite differences.
    reads = [(slot, places) for slot, places in sets.slots("reads") if slot.tensor == "last.weight"]
    _, places = reads[0]
    for entry in (0, 5, 11):
        shift = 1e-5
        losses = []
        for factor in (1 + shift, 1 - shift):
            with torch.no_grad():
                net.last.weight[:, entry] *= factor
                losses.append(float(loss(net, (images, labels))[0]) / 4)
                net.last.weight[:, entry] /= factor
        slope = (losses[0] - losses[1]) / (2 * shift)
        assert np.isclose(scores[places[entry]], slope**2, rtol=1e-4)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("of", ["parameters", "multiplications"])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_a_ratio_is_reached_and_not_by_far(of, ratio):
    config = PruningConfig(of=of, multiple=1, least=0.05)
    pruned = ChannelPruner(small(64), X, ratio, config).prune()
    gone = 1 - pruned.after.of(of) / pruned.before.of(of)
    assert ratio <= gone < ratio + 0.03


def test_layers_keep_multiples_and_their_least():
    pruned = ChannelPruner(small(64), X, 0.5, PruningConfig(multiple=8, least=0.5)).prune()
    widths = pruned.model[0].out_channels, pruned.model[3].out_channels
    assert all(width % 8 == 0 and width >= 32 for width in widths)
    with pytest.raises(PruningError, match=r"at most 0\.7\d\d with least=0\.5"):
        ChannelPruner(small(64), X, 0.9, PruningConfig(least=0.5)).prune()


def test_the_scope_layer_takes_the_same_share_of_each():
    net = small(32)
    with torch.no_grad():
        net[1].weight *= 1e-3  # the first layer would lose all
    config = PruningConfig(scope="layer", multiple=1, criterion="bn-scale")
    pruned = ChannelPruner(net, X, 0.5, config).prune()
    assert abs(pruned.model[0].out_channels - pruned.model[3].out_channels) <= 1
    whole = ChannelPruner(net, X, 0.4, PruningConfig(multiple=1, criterion="bn-scale")).prune()
    assert whole.model[0].out_channels < whole.model[3].out_channels == 32


def test_milliseconds_are_those_that_are_measured():
    seen = []

    def measure(net):
        seen.append(net[0].out_channels * net[3].out_channels)
        return float(seen[-1])

    config = PruningConfig(of="ms", multiple=1)
    pruned = ChannelPruner(small(32), X, 0.5, config).prune(measure=measure)
    assert seen[0] == 32 * 32
    assert 0.5 * 1024 * 0.9 < pruned.model[0].out_channels * pruned.model[3].out_channels <= 512
    with pytest.raises(PruningError, match="measure="):
        ChannelPruner(small(32), X, 0.5, config).prune()


def test_rounds_of_training_keep_what_was_learned():
    net = small(32)
    train(net, 120)
    assert accuracy(net) > 0.95
    asked = []

    def fine_tune(model, number):
        asked.append((number, sum(p.numel() for p in model.parameters())))
        train(model, 40)

    config = PruningConfig(rounds=3, multiple=1, criterion="taylor", batches=4)
    pruned = ChannelPruner(net, X, 0.8, config).prune(batches=batch, loss=loss, fine_tune=fine_tune)
    assert [number for number, _ in asked] == [1, 2, 3]
    sizes = [pruned.before.parameters, *(size for _, size in asked)]
    shares = [b / a for a, b in itertools.pairwise(sizes)]
    assert all(0.5 < share < 0.6 for share in shares)  # a third of the way each: .2 ** (1/3) = .58
    assert len(pruned.surgeries) == 3
    assert accuracy(pruned.model) > 0.9
    assert not pruned.model.training


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(x))


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 2)

    def forward(self, x):
        return self.other(self.one(x).view(-1, 288))


class Sorted(Written):
    def forward(self, x):
        return self.other(torch.sort(self.one(x), dim=1).values.flatten(1))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Counts(), "Counts has no fixed graph"),
        (Tied(), r"one\.weight and other\.weight are one tensor"),
        (Written(), r"no channel can be taken out.*view views channels by the written size 288"),
        (Sorted(), r"no channel can be taken out.*sort \(sort\) is not known to the pruner"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), "no channel can be taken out.*output of the net: 8"),
        (nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 1)), "every layer has one"),
        (nn.Sequential(nn.Conv2d(5, 9, 1), nn.Conv2d(9, 2, 1)), r"example \[\(1, 3, 8, 8\)\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_told_before_any_work(net, says):
    with pytest.raises(PruningError, match=says):
        ChannelPruner(net, X if not isinstance(net, Tied) else torch.zeros(2, 8), 0.5)


def test_wrong_settings_name_the_fix():
    for ratio in (0, 1, -0.2, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            ChannelPruner(small(), X, ratio)
    wrong = [
        {"criterion": "l7"}, {"of": "flops"}, {"scope": "all"}, {"rounds": 0}, {"multiple": 0},
        {"batches": 0}, {"least": 1.0},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(ValueError, match=next(iter(settings))):
            PruningConfig(**settings)
    with pytest.raises(PruningError, match="batches and a loss"):
        ChannelPruner(small(), X, 0.5, PruningConfig(criterion="taylor")).prune()
    bare = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with pytest.raises(PruningError, match=r"no batch norm scales what 0\.weight makes"):
        ChannelPruner(bare, X, 0.5, PruningConfig(criterion="bn-scale")).prune()


def test_gradients_that_are_not_finite_are_refused():
    config = PruningConfig(criterion="taylor", batches=1)
    spoilt = torch.full((32, 3, 8, 8), float("nan")), batch(0)[1]
    with pytest.raises(PruningError, match="not finite"):
        ChannelPruner(small(), X, 0.5, config).prune(batches=lambda _: spoilt, loss=loss)


def test_plans_that_do_not_fit_change_nothing():
    net = small()
    shapes = {"0.weight": (16, 3, 3, 3), "9.weight": (2,)}
    plan = Surgery({"0.weight": {0: (0, 1)}, "9.weight": {0: (0,)}}, {}, shapes)
    with pytest.raises(PruningError, match=r"has no 9\.weight"):
        plan.apply(net)
    assert net[0].weight.shape[0] == 16
    with pytest.raises(
        PruningError, match=r"is \(32, 3, 3, 3\), the plan was made for \(16, 3, 3, 3"
    ):
        Surgery({"0.weight": {0: (0, 1)}}, {}, shapes).apply(small(32))
    for wrong in (
        {},
        {"kept": [], "sizes": {}, "shapes": {}},
        {"kept": {"a": {0: [1]}}, "sizes": {}, "shapes": {}},
        {"kept": {"a": {"x": [1]}}, "sizes": {}, "shapes": {"a": [2]}},
    ):
        with pytest.raises(PruningError, match="not a plan"):
            Surgery.from_json(wrong)


def test_the_example_of_the_docs_runs():
    assert doctest.testmod(channel_pruner).failed == 0
