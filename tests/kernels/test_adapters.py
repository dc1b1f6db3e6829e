"""Adapters: begin at nothing, train alone, are worked in exactly, several on one net."""

from __future__ import annotations

import copy
import doctest

import pytest
import torch
import torchvision.models
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import nn
from torch.nn import functional

from kernels.compression.adapters import adapters
from kernels.compression.adapters.adapters import attach, load, merged, names, remove, state_of, use
from kernels.compression.adapters.low_rank import Adapted, AdapterError, LoraConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run


class Mixed(nn.Module):
    """One layer of every kind that can take an adapter."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.line = nn.Conv1d(12, 12, 3, padding="same", padding_mode="circular", dilation=2)
        self.image = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.last = nn.Linear(16, 3)

    def forward(self, words):
        x = self.line(self.words(words).mT)
        x = self.grouped(torch.relu(self.norm(self.image(x[:, None]))))
        return self.last(self.depthwise(x).mean(dim=(2, 3)))


def words(count=4, seed=0):
    return torch.randint(0, 20, (count, 16), generator=torch.Generator().manual_seed(seed))


def disturb(net, name, seed=0):
    """Give an adapter weights as after training."""
    generator = torch.Generator().manual_seed(seed)
    use(net, name)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=generator)


def test_an_adapter_begins_at_the_net_as_it_was_and_only_it_is_trained():
    net = Mixed().eval()
    before = net(words())
    attach(net, LoraConfig(rank=4))
    assert torch.equal(net(words()), before)
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert len(trained) == 12
    assert all(".additions.default." in name for name in trained)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 64), st.integers(0, 99))
def test_working_it_in_changes_no_answer(rank, alpha, seed):
    torch.manual_seed(seed)
    net = Mixed().double().eval()
    attach(net, LoraConfig(rank=rank, alpha=alpha))
    disturb(net, "default", seed)
    whole = merged(net, "default")
    want = net(words())
    assert type(whole.line) is nn.Conv1d
    torch.testing.assert_close(whole(words()), want, rtol=1e-10, atol=1e-10)


def test_worked_in_within_a_millionth_in_float32():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    attach(net, LoraConfig(rank=8, targets=("conv1", "conv2", "fc")))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(0, 0.002)
        apart = (merged(net, "default")(x) - net(x)).abs().max() / net(x).abs().max()
        use(net, None)
        changed = (merged(net, "default")(x) - net(x)).abs().max()
    assert apart <= 2e-6
    assert changed > 1e-2


def test_several_adapters_share_one_net():
    torch.manual_seed(0)
    net = Mixed().eval()
    plain = net(words())
    answers = {}
    for number, name in enumerate(("first", "second")):
        attach(net, LoraConfig(rank=number + 2), name)
        disturb(net, name, number)
        answers[name] = net(words())
    assert names(net) == {"first", "second"}
    for name in ("first", "second", "first"):
        use(net, name)
        assert torch.equal(net(words()), answers[name])
    use(net, None)
    assert torch.equal(net(words()), plain)
    remove(net, "first")
    use(net, "second")
    assert torch.equal(net(words()), answers["second"])
    remove(net, "second")
    assert type(net.last) is nn.Linear
    assert type(net.norm) is nn.BatchNorm2d
    assert torch.equal(net(words()), plain)


def test_an_adapter_is_saved_without_its_net():
    net = Mixed().eval()
    fresh = copy.deepcopy(net)
    config = LoraConfig(rank=3, targets=("last", "image"))
    attach(net, config, "line")
    disturb(net, "line")
    content = to_bytes(state_of(net, "line"))
    assert len(content) < 2_000
    load(fresh, from_bytes(content), config, "other name")
    assert torch.equal(fresh(words()), net(words()))
    with pytest.raises(AdapterError, match="does not fit the net at"):
        load(fresh, from_bytes(content), LoraConfig(rank=2), "wrong")
    assert names(fresh) == {"other name"}


def test_an_adapter_may_count_by_norms_of_its_own():
    torch.manual_seed(0)
    net = Mixed()
    net(words(64))
    plain, fresh = net.eval()(words()), copy.deepcopy(net)
    config = LoraConfig(rank=3, norms=True)
    attach(net, config, "own")
    attach(net, LoraConfig(rank=3), "shared")
    use(net, "own")
    net.train()
    with torch.no_grad():
        net(words(64, 5) // 4)  # other data: the adapter's norms count it
    net.eval()
    disturb(net, "own")
    answers = net(words())
    torch.testing.assert_close(merged(net, "own")(words()), answers)
    assert type(merged(net, "own").norm) is nn.BatchNorm2d
    use(net, "shared")
    torch.testing.assert_close(net(words()), plain)  # B is still zero
    load(fresh, from_bytes(to_bytes(state_of(net, "own"))), config, "again")
    assert torch.equal(fresh.eval()(words()), answers)
    remove(fresh, "again")
    assert type(fresh.norm) is nn.BatchNorm2d
    assert torch.equal(fresh(words()), plain)


def test_training_moves_the_adapter_and_nothing_else():
    torch.manual_seed(0)
    net = Mixed()
    net(words(64))  # the norms have seen something
    attach(net, LoraConfig(rank=4, dropout=0.1))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def batch(index):
        x = words(32, index)
        return x, (x.float().mean(1) > 9.5).long()

    def loss(model, pair):
        x, labels = pair
        return functional.cross_entropy(model(x), labels, reduction="sum"), len(labels)

    optimizer = OptimizerConfig(learning_rate=0.02)
    run(net, batch, loss, RunConfig(steps=60, optimizer=optimizer))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".additions." not in name), name
    x, labels = batch(999)
    assert (net(x).argmax(1) == labels).float().mean() > 0.8


@pytest.mark.parametrize(
    ("settings_", "says"),
    [({"rank": 0}, "rank"), ({"alpha": 0.0}, "alpha"), ({"dropout": 1.0}, "dropout")],
)
def test_wrong_settings_name_the_fix(settings_, says):
    with pytest.raises(ValueError, match=says):
        LoraConfig(**settings_)


def test_wrong_use_is_told():
    net = Mixed()
    with pytest.raises(AdapterError, match=r"no layer is called frist.*words, line, image"):
        attach(net, LoraConfig(targets=("frist",)))
    assert all(p.requires_grad for p in net.parameters())
    attach(net, LoraConfig(), "a")
    with pytest.raises(AdapterError, match="has an adapter 'a'"):
        attach(net, LoraConfig(), "a")
    for name in ("a.b", "", "keys"):
        with pytest.raises(AdapterError, match="a word without dots"):
            attach(net, LoraConfig(), name)
    for wrong in (lambda: use(net, "b"), lambda: merged(net, "b"), lambda: remove(net, "b")):
        with pytest.raises(AdapterError, match=r"no adapter 'b'; the net has \['a'\]"):
            wrong()
    alone = nn.Linear(2, 2)
    with pytest.raises(AdapterError, match="single layer"):
        attach(alone, LoraConfig())
    assert alone.weight.requires_grad
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    same = nn.Linear(4, 4)
    for shared in (tied, nn.Sequential(same, same)):
        with pytest.raises(AdapterError, match=r"0\.weight and 1\.weight are one tensor"):
            attach(shared, LoraConfig())


def test_layers_of_torch_that_look_past_forward():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0)
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 5, 2))
    x = torch.randn(3, 5, 16)
    attach(net, LoraConfig(rank=2, dropout=0))
    assert type(net[0].self_attn.out_proj) is not Adapted
    disturb(net, "default")
    torch.testing.assert_close(net.train()(x), net.eval()(x))
    torch.testing.assert_close(merged(net, "default").eval()(x), net(x), rtol=1e-4, atol=1e-4)


def test_a_word_that_pads_stays_0():
    net = nn.Sequential(nn.Embedding(10, 4, padding_idx=3), nn.Linear(4, 2)).eval()
    attach(net, LoraConfig(rank=2))
    disturb(net, "default")
    padded = torch.tensor([[3, 3, 1]])
    assert bool((net[0](padded)[0, :2] == 0).all())
    torch.testing.assert_close(merged(net, "default")(padded), net(padded))


def test_the_example_of_the_docs_runs():
    assert doctest.testmod(adapters).failed == 0
