"""Four-bit weights: rounding that makes up for itself, packed layers, adapters on top of them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision.models
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.compression.adapters.adapters import attach, merged
from kernels.compression.adapters.low_rank import AdapterError, LoraConfig
from kernels.compression.gptq import RoundingConfig, RoundingError, corrected, nearest
from kernels.compression.packed import Packed, packed

PLAIN = RoundingConfig(shrink=(1.0,), by_importance=False)


def problem(rows=16, columns=48, seed=0):
    """Return weights and moments of inputs that depend on each other, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mixing = torch.randn(columns, columns // 2, generator=generator).double()
    x = torch.randn(600, columns // 2, generator=generator).double() @ mixing.T
    x += 0.3 * torch.randn(600, columns, generator=generator)
    return weight, x.T @ x / len(x)


def error(rounded, weight, moments):
    apart = (rounded.weights() - weight).double()
    return float((apart @ moments * apart).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.sampled_from([0, 5, 16, 48]), st.booleans(), st.integers(0, 99))
def test_the_nearest_code_is_nearest(bits, group, symmetric, seed):
    weight, _ = problem(4, 48, seed)
    config = RoundingConfig(bits=bits, group=group, symmetric=symmetric, shrink=(1.0,))
    rounded = nearest(weight, config)
    apart = (rounded.weights() - weight).abs()
    place = torch.arange(48) // (group or 48)
    # Half a step; of a symmetric range the upper end lies one code lower.
    assert bool((apart <= rounded.scales[:, place] * (1.01 if symmetric else 0.51)).all())
    assert int(rounded.codes.max()) < 2**bits
    zero = nearest(torch.zeros(2, 48), config)
    assert bool((zero.weights() == 0).all())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([3, 4]), st.sampled_from([0, 16]), st.booleans())
def test_answers_change_less_than_by_the_nearest(seed, bits, group, by_importance):
    weight, moments = problem(seed=seed)
    config = RoundingConfig(bits=bits, group=group, by_importance=by_importance)
    ours = error(corrected(weight, moments, config), weight, moments)
    assert ours < 0.7 * error(nearest(weight, config, moments), weight, moments)


def test_of_independent_inputs_it_is_the_nearest():
    weight, _ = problem()
    rounded = corrected(weight, torch.eye(48).double(), PLAIN)
    assert torch.equal(rounded.codes, nearest(weight, PLAIN).codes)


def test_the_last_column_makes_up_for_all_before_it():
    """The published update: what is left unrounded is the least-squares answer to the errors."""
    weight, moments = problem(3, 4, seed=2)
    config = RoundingConfig(bits=3, group=0, damping=1e-9, shrink=(1.0,), by_importance=False)
    rounded = corrected(weight, moments, config)
    done = rounded.weights().double()
    # With the first three columns as they are, the fourth that is best, then rounded.
    apart = weight.double()[:, :3] - done[:, :3]
    best = weight.double()[:, 3] + apart @ moments[:3, 3] / moments[3, 3]
    codes = torch.round(best / rounded.scales[:, 0] + rounded.zeros[:, 0]).clamp(0, 7)
    assert torch.equal(codes.to(torch.uint8), rounded.codes[:, 3])


def test_it_is_near_the_best_of_all_roundings():
    weight, moments = problem(1, 6, seed=4)
    config = RoundingConfig(bits=2, group=0, shrink=(1.0,))
    rounded = corrected(weight, moments, config)
    ours = error(rounded, weight, moments)
    scale, zero = float(rounded.scales), float(rounded.zeros)
    every = torch.tensor(list(itertools.product(range(4), repeat=6))).double()
    apart = (every - zero) * scale - weight.double()
    best = float(((apart @ moments) * apart).sum(1).min())
    plain = error(nearest(weight, config), weight, moments)
    assert best <= ours <= plain
    assert ours <= best + 0.5 * (plain - best)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 15, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(15, 20, 3, padding=1, groups=5, bias=False)
        self.last = nn.Linear(20, 3)

    def forward(self, x):
        return self.last(torch.relu(self.grouped(torch.relu(self.first(x)))).mean((2, 3)))


def images(count=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 12, 12, generator=generator) for _ in range(count)]


def test_packed_layers_answer_as_their_weights_say():
    torch.manual_seed(0)
    net = Small().eval()
    small, reports = packed(net, images())
    x = images()[0]
    assert [report.name for report in reports] == ["first", "grouped", "last"]
    assert all(report.error < report.error_nearest < 0.05 for report in reports)
    assert (small(x) - net(x)).abs().max() < 0.2 * net(x).abs().max()
    plain = nn.ModuleDict()
    for name in ("first", "grouped", "last"):
        layer = small.get_submodule(name)
        assert isinstance(layer, Packed)
        plain[name] = layer.unpacked()
        small.set_submodule(name, plain[name])
    torch.testing.assert_close(small(x), packed(net, images())[0](x))


def test_four_bits_are_an_eighth():
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    small, _ = packed(net, [torch.randn(64, 256)])
    sizes = [
        sum(t.numel() * t.element_size() for t in each.state_dict().values())
        for each in (net, small)
    ]
    assert sizes[1] / sizes[0] < 0.16  # and the scales, one in 64
    state = small.state_dict()
    again, _ = packed(net, [torch.randn(64, 256)])
    again.load_state_dict(state)
    x = torch.randn(4, 256)
    assert torch.equal(again(x), small(x))


def test_a_known_net_keeps_its_answers():
    torch.manual_seed(0)
    whole = torchvision.models.mobilenet_v3_small()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10)
    net = nn.Sequential(whole.features[:5], *head)
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        for _ in range(30):
            net(x)  # the norms have seen something
    net.eval()
    small, reports = packed(net, [x], keep=("0.0.0",))
    assert len(reports) == 16
    assert isinstance(small[0][0][0], nn.Conv2d)
    better = sum(report.error <= report.error_nearest for report in reports)
    assert better >= 14
    assert torch.nn.functional.cosine_similarity(small(x), net(x)).min() > 0.9


def test_an_adapter_is_trained_on_packed_layers():
    torch.manual_seed(0)
    base, _ = packed(
        nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)), [torch.randn(64, 32)]
    )
    attach(base, LoraConfig(rank=4, dropout=0))
    trained = [p for p in base.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 4 * (32 + 32) + 2 * (32 + 2)
    x = torch.randn(128, 32)
    target = (x[:, :1] > 0).long().flatten()
    optimizer = torch.optim.Adam(trained, 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(base(x), target).backward()
        optimizer.step()
    assert (base(x).argmax(1) == target).float().mean() > 0.9
    with pytest.raises(AdapterError, match="0 is Packed, whose weights are packed; unpack it"):
        merged(base, "default")


def test_wrong_input_is_told():
    weight, moments = problem()
    for settings_, says in (
        ({"bits": 1}, "bits"), ({"group": -1}, "group"), ({"damping": 0.0}, "damping"),
        ({"shrink": ()}, "shrink"), ({"shrink": (1.2,)}, "shrink"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            RoundingConfig(**settings_)
    with pytest.raises(RoundingError, match=r"moments are \(3, 3\) for 48 inputs"):
        corrected(weight, torch.eye(3), PLAIN)
    with pytest.raises(RoundingError, match="inputs are not finite"):
        corrected(weight, moments * float("nan"), PLAIN)
    with pytest.raises(RoundingError, match="weights are not finite"):
        nearest(weight / 0, PLAIN)
    net = Small()
    for wrong, says in (
        (lambda: packed(net, []), "needs calibration inputs"),
        (lambda: packed(net, images(), RoundingConfig(bits=8)), "at most 4 bits"),
        (lambda: packed(nn.Sequential(nn.ReLU()), images()), "no linear layer"),
        (lambda: packed(net, [images()[0] * float("nan")]), "first: the layer's inputs are not"),
    ):
        with pytest.raises(RoundingError, match=says):
            wrong()


def test_layers_that_cannot_be_packed_are_named():
    x = torch.randn(4, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding="same"))
    with pytest.raises(RoundingError, match=r"1: padding 'same' of zeros.*keep"):
        packed(net, [x])
    assert isinstance(packed(net, [x], keep=("1",))[0][1], nn.Conv2d)
    with pytest.raises(RoundingError, match=r"0: weights are torch\.float64; call \.float"):
        packed(net.double(), [x.double()])
    with pytest.raises(RoundingError, match="keep names frist"):
        packed(net, [x], keep=("frist",))
    same = nn.Linear(4, 4)
    with pytest.raises(RoundingError, match=r"0\.weight and 1\.weight are one tensor"):
        packed(nn.Sequential(same, same), [torch.randn(3, 4)])


def test_an_adapter_on_a_packed_convolution():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    x = torch.randn(4, 3, 8, 8)
    small, _ = packed(net, [x])
    before = small(x)
    attach(small, LoraConfig(rank=2, dropout=0))
    assert torch.equal(small(x), before)
    with torch.no_grad():
        small[0].additions["default"].up.fill_(0.1)
    assert not torch.equal(small(x), before)


def test_inputs_that_are_always_zero_have_no_say():
    weight, moments = problem()
    moments[3], moments[:, 3] = 0, 0
    rounded = corrected(weight, moments, PLAIN)
    assert torch.isfinite(rounded.weights()).all()
    assert torch.isfinite(corrected(weight, moments * 0, PLAIN).weights()).all()
