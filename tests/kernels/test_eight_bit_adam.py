"""AdamW with moments of 8 bits: the code, the memory, the same training, resumed bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.compression.eight_bit_adam import (
    BLOCK,
    EightBitAdamW,
    packed,
    signed_code,
    unpacked,
    unsigned_code,
)
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.runner import Runner


def test_the_codes_have_256_values_dense_near_zero():
    for code, least in ((signed_code(), -1.0), (unsigned_code(), 0.0)):
        assert len(code) == 256
        assert bool((code[1:] > code[:-1]).all())
        assert code[-1] == 1
        assert code.min() >= least
        assert 0 in code
    assert unsigned_code()[1] < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.floats(1e-12, 1e6), st.booleans(), st.integers(0, 99))
def test_what_is_packed_comes_back_within_a_step_of_the_code(count, scale, signed, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator) ** 3 * scale
    code = signed_code() if signed else unsigned_code()
    values = values if signed else values.abs()
    codes, largest = packed(values, code)
    assert codes.dtype == torch.uint8
    assert len(largest) == -(-count // BLOCK)
    back = unpacked(codes, largest, code)
    assert (back - values).abs().max() <= 0.01 * values.abs().max() + 1e-30
    big = values.abs() > 1e-4 * largest.repeat_interleave(BLOCK)[:count]
    assert bool(((back - values).abs()[big] <= 0.3 * values.abs()[big]).all())
    assert torch.equal(unpacked(*packed(torch.zeros(5), code), code), torch.zeros(5))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)
    )


def batch(index):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(64, 64, generator=generator)
    return x, (x[:, :8].sum(1, keepdim=True) / 3).tanh()


def loss(model, pair):
    return (model(pair[0]) - pair[1]).square().sum(), len(pair[0])


def trained(seed, build, steps=150, folder=None, stops=None):
    model = net(seed)

    def batches(index):
        if index == stops:
            raise IndexError
        return batch(index)

    config = RunConfig(steps=steps, checkpoint=CheckpointConfig(every=10))
    runner = Runner(model, batches, loss, config, build_optimizer=build, folder=folder)
    runner.run()
    with torch.no_grad():
        return model, runner.optimizer, float(loss(model, batch(9_999))[0]) / 64


def eight(groups):
    return EightBitAdamW(groups, lr=2e-3)


def plain(groups):
    return torch.optim.AdamW(groups, lr=2e-3)


def state_bytes(optimizer):
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
    )


def test_it_trains_as_adamw_does_with_a_fourth_of_the_state():
    pairs = [(trained(seed, eight), trained(seed, plain)) for seed in range(3)]
    ours = sum(one[2] for one, _ in pairs) / 3
    theirs = sum(other[2] for _, other in pairs) / 3
    assert ours < 1.1 * theirs
    assert state_bytes(pairs[0][0][1]) < 0.3 * state_bytes(pairs[0][1][1])


def test_the_first_step_is_that_of_adamw():
    one, other = net(), net()
    for model, build in ((one, eight), (other, plain)):
        optimizer = build(model.parameters())
        total, _ = loss(model, batch(0))
        total.backward()
        optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_run_that_goes_on_ends_at_the_same_bits(tmp_path):
    whole, _, _ = trained(0, eight, 30, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="ended before batch 17"):
        trained(0, eight, 30, tmp_path / "parts", stops=17)
    again, optimizer, _ = trained(0, eight, 30, tmp_path / "parts")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )
    assert any(s["first"].dtype == torch.uint8 for s in optimizer.state.values())


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"eps": 0.0}, {"weight_decay": -1.0}, {"betas": (1.0, 0.9)}]
)
def test_wrong_settings_are_told(wrong):
    with pytest.raises(ValueError, match="lr and eps must be above 0"):
        EightBitAdamW([nn.Parameter(torch.zeros(2))], **wrong)


def test_sparse_gradients_are_told():
    layer = nn.Embedding(10, 4, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="SparseAdam"):
        EightBitAdamW(layer.parameters()).step()
