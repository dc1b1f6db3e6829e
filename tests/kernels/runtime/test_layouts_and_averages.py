"""Memory layouts, averages and shared weights that a run must not lose or confuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.parallel import SpreadError
from kernels.runtime.pipeline import cut_stages
from kernels.runtime.runner import run
from kernels.scheduling.jobs import Request
from tests.kernels.runtime.small import Stop, config, weights


def pictures(index):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(index))


def mean_square(model, batch):
    return model(batch).pow(2).sum(), len(batch)


def make_net():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 2, 3))
    return net.to(memory_format=torch.channels_last)


def test_a_resumed_run_of_channels_last_goes_on_bit_for_bit(tmp_path):
    plan = config(10, 0.01, every=5)
    whole, again = make_net(), make_net()
    run(whole, pictures, mean_square, plan)
    with pytest.raises(KeyboardInterrupt):
        run(make_net(), pictures, mean_square, plan, [Stop(6)], tmp_path)
    assert run(again, pictures, mean_square, plan, folder=tmp_path).steps == 5
    assert torch.equal(weights(whole), weights(again))


def test_the_average_of_bf16_weights_moves():
    found = []
    for parameters in (ParametersConfig(), ParametersConfig(dtype="bf16")):
        net = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            net.weight.fill_(1.0)
        kind = net.weight.dtype if parameters.dtype == "fp32" else torch.bfloat16
        plan = config(1_500, 2e-3, decay=0.0, parameters=parameters, ema=EmaConfig(decay=0.999))
        run(net, lambda _, k=kind: torch.ones(1, 1, dtype=k), lambda m, b: (-m(b).sum(), 1), plan)
        found.append(float(net.weight.detach()))
    assert found[0] > 1.2
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_weights_shared_by_two_stages_are_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    with pytest.raises(SpreadError, match="belongs to stage 1 and to stage 2"):
        cut_stages(net, ("2",))


def test_a_job_that_arrives_at_no_time_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        Request(number=1, kind="a", arrival=float("nan"), devices=1, memory=1.0, estimate=60.0)
