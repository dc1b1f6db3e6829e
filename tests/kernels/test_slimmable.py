"""Slimmable nets: narrow nets inside the widest, their own statistics, one training for all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.compression.pruning.errors import PruningError
from kernels.compression.slimmable import Slimmable, widest_within
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import Runner
from tests.kernels.pruning.nets import Shared, lively
from tests.kernels.pruning.test_choice import accuracy, batch, small

X = torch.zeros(1, 3, 8, 8)


def on_labels(answers, pair):
    return nn.functional.cross_entropy(answers, pair[1], reduction="sum"), len(answers)


def slim(width=32):
    return Slimmable(small(width), X, (0.25, 0.5, 0.75, 1.0))


def trained(net, folder, steps, *, stops_at=None):
    def batches(index):
        if index == stops_at:
            raise IndexError
        return batch(index)

    config = RunConfig(
        steps=steps,
        optimizer=OptimizerConfig(learning_rate=0.01),
        checkpoint=CheckpointConfig(every=5),
    )
    Runner(net, batches, net.loss(on_labels), config, folder=folder).run()


def test_a_width_alone_answers_as_inside():
    net = Slimmable(lively(Shared()), X, (0.3, 1.0), multiple=1).eval()
    x = torch.randn(4, 3, 8, 8)
    for width in (0, 1):
        torch.testing.assert_close(net.at(width)(x), net(x, width))
    assert torch.equal(net(x), net.net(x))
    alone = net.at(0)
    assert alone.first.out_channels == 5
    assert sum(p.numel() for p in alone.parameters()) == net.costs[0].parameters
    assert net.costs[0].multiplications < net.costs[1].multiplications


def test_wider_nets_hold_the_narrower_ones():
    net = slim()
    for narrow, wide in zip(net._surgeries, net._surgeries[1:-1], strict=False):
        for name, dims in narrow.kept.items():
            for dim, indices in dims.items():
                assert set(indices) <= set(wide.kept[name][dim])
    assert [net.at(width)[0].out_channels for width in range(4)] == [8, 16, 24, 32]


def test_gradients_of_all_widths_meet_in_the_widest():
    net = slim()
    total, items = net.loss(on_labels)(net, batch(0))
    total.backward()
    assert items == 32
    assert all(p.grad is not None for p in net.net.parameters())
    assert len(list(net.parameters())) == len(list(net.net.parameters()))


def some_labels(answers, pair):
    """Labels of the first images only, as where nobody has labelled the others."""
    named = answers[: len(pair[1])]
    return nn.functional.cross_entropy(named, pair[1], reduction="sum"), len(named)


@pytest.mark.parametrize("labels", [0.0, 0.3, 1.0])
def test_narrow_nets_learn_from_labels_and_from_the_widest(labels):
    net, (x, y) = Slimmable(small(32), X, (0.25, 1.0)), batch(0)
    pair = x, y[:20]
    total, items = net.loss(some_labels, labels=labels)(net, pair)
    widest, narrow = net(x), net(x, 0)
    told = narrow.log_softmax(1), widest.log_softmax(1)
    expected = (
        some_labels(widest, pair)[0]
        + labels * some_labels(narrow, pair)[0]
        + (1 - labels) * nn.functional.kl_div(*told, reduction="sum", log_target=True)
    )
    assert items == 20
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(("labels", "learns"), [(0.0, False), (0.5, True)])
def test_narrow_nets_learn_before_the_widest_knows_anything(labels, learns):
    net, (x, y) = Slimmable(small(32), X, (0.25, 1.0)), batch(0)
    with torch.no_grad():
        net.net[-1].weight.zero_()
        net.net[-1].bias.zero_()
    loss = net.loss(on_labels, labels=labels)(net, (x, y))[0]
    alone = on_labels(net(x), (x, y))[0]
    ours, widest = (torch.autograd.grad(each, net.net[-1].weight)[0] for each in (loss, alone))
    # All say nothing alike: imitation has no gradient, labels have.
    assert (ours - widest).abs().max().gt(1e-3).item() is learns


def test_one_training_makes_every_width_good(tmp_path):
    net = slim()
    trained(net, tmp_path, 120)
    found = [accuracy(net.at(width)) for width in range(4)]
    assert min(found) > 0.9
    # Each width counted its own statistics.
    means = [buffer for name, buffer in net.statistics[0].named_buffers() if "mean" in name]
    assert all(len(each) == 8 and each.abs().sum() > 0 for each in means)


def test_a_run_that_goes_on_ends_at_the_same_bits(tmp_path):
    whole = slim()
    trained(whole, tmp_path / "whole", 12)
    with pytest.raises(RuntimeError, match="ended before batch 7"):
        trained(slim(), tmp_path / "parts", 12, stops_at=7)
    again = slim()
    trained(again, tmp_path / "parts", 12)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_which_channels_a_width_has_is_saved():
    torch.manual_seed(5)
    one, other = slim(), Slimmable(nn.Sequential(*small(32)), X)
    with torch.no_grad():
        for parameter in other.net.parameters():
            parameter.copy_(parameter.flip(0))
    other = Slimmable(other.net, X)
    x = torch.randn(4, 3, 8, 8)
    assert one._surgeries[0].kept["0.weight"] != other._surgeries[0].kept["0.weight"]
    other.load_state_dict(one.state_dict())
    for width in range(4):
        assert torch.equal(one.eval()(x, width), other.eval()(x, width))
    with pytest.raises(PruningError, match="one of 4 widths, not 2"):
        Slimmable(small(32), X, (0.5, 1.0)).set_extra_state(one.get_extra_state())


def test_modes_stay_as_they_were():
    net = small(32).train()
    net[1].eval()
    Slimmable(net, X)
    assert net.training
    assert not net[1].training


def test_the_widest_within_a_budget_is_chosen():
    assert widest_within([1.0, 2.0, 2.5, 9.0], 2.5) == 2
    assert widest_within([1.0, 3.0, 2.0], 2.0) == 2  # measured: a wider one may be the faster
    with pytest.raises(ValueError, match=r"the least is 1: give more"):
        widest_within([1.0, 2.0], 0.5)


def test_wrong_input_is_told():
    for widths in ((), (1.0,), (0.5, 0.5, 1.0), (0.5, 0.9), (0, 1.0)):
        with pytest.raises(ValueError, match="ascending shares up to"):
            Slimmable(small(), X, widths)
    for labels in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\]"):
            slim().loss(on_labels, labels=labels)
    for narrower in (0, 4):
        with pytest.raises(ValueError, match="give 1 to 3, the narrower widths"):
            slim().loss(on_labels, narrower=narrower)
    with pytest.raises(PruningError, match="no channel of the net can go"):
        Slimmable(nn.Sequential(nn.Conv2d(3, 8, 3)), X)
