"""Products of 8 bits: what is rounded, what stays, and that nets learn all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.eight_bit_training import (
    EightBitTrainingConfig,
    eight_bit_products,
    to_eight_bits,
)
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "backward"), [("int8", True), ("fp8", False), ("fp8", True)])
def test_at_most_256_numbers_are_left_and_chance_keeps_the_mean(kind, backward):
    x = values(20_000)
    torch.manual_seed(1)
    nearest = to_eight_bits(x, kind, backward=backward, stochastic=False)
    assert len(nearest.unique()) <= 256
    by_chance = torch.stack(
        [to_eight_bits(x, kind, backward=backward, stochastic=True) for _ in range(30)]
    )
    assert len(by_chance.unique()) <= 256
    # Over 30 draws the mean comes near each number; one draw is a step off.
    one, many = ((part - x).abs().mean() for part in (by_chance[0], by_chance.mean(0)))
    assert many < 0.3 * one
    assert (nearest - x).abs().mean() < one


def test_both_sides_of_every_product_are_rounded_and_nothing_beside():
    layer, x = nn.Linear(8, 4), values(16, 8).requires_grad_()
    config = EightBitTrainingConfig(stochastic=False)

    def int8(t, *, backward=False):
        return to_eight_bits(t.detach(), "int8", backward=backward, stochastic=False)

    gradient = values(16, 4, seed=3)
    with eight_bit_products(layer, config):
        answer = layer(x)
        answer.backward(gradient)
    expected = int8(x) @ int8(layer.weight).T + layer.bias
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(layer.weight.grad, int8(gradient, backward=True).T @ int8(x))
    torch.testing.assert_close(x.grad, int8(gradient, backward=True) @ int8(layer.weight))
    torch.testing.assert_close(layer.bias.grad, gradient.sum(0))  # a sum is no product
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))


def test_a_convolution_is_rounded_as_the_product_it_is():
    layer, x = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), values(2, 4, 9, 9)
    with eight_bit_products(layer):
        answer = layer(x)
    rounded = [to_eight_bits(t, "int8", backward=False, stochastic=False)
               for t in (x, layer.weight.detach())]  # fmt: skip
    expected = functional.conv2d(*rounded, layer.bias, 2, 1, 1, 2)
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_net_learns_nearly_as_in_float(kind):
    x = values(256, 16)
    y = (x[:, :8] * x[:, 8:]).sum(1) > 0

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                             nn.Linear(64, 2))  # fmt: skip

    def loss(model, batch):
        return functional.cross_entropy(model(batch), y.long(), reduction="sum"), len(batch)

    def learned(model):
        run(model, lambda _: x, loss,
            RunConfig(steps=60, optimizer=OptimizerConfig(learning_rate=3e-3)))  # fmt: skip
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())

    exact, rounded = net(), net()
    with eight_bit_products(rounded, EightBitTrainingConfig(format=kind)) as layers:
        share = learned(rounded)
    assert layers == ["0", "2", "4"]
    assert share > learned(exact) - 0.05
    assert share > 0.8
    assert not np.allclose(exact[0].weight.detach(), rounded[0].weight.detach(), atol=1e-4)


def test_wrong_settings_are_said():
    with pytest.raises(ValueError, match="int8 or fp8"):
        EightBitTrainingConfig(format="int4")
    with (
        pytest.raises(ValueError, match="keep names head"),
        eight_bit_products(nn.Sequential(nn.Linear(2, 2)), EightBitTrainingConfig(keep=("head",))),
    ):
        pass
    with pytest.raises(ValueError, match="no linear layer"), eight_bit_products(nn.ReLU()):
        pass
    mirrored = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match="other values than 0"), eight_bit_products(mirrored):
        pass
