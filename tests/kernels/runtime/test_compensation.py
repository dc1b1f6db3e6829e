"""Parameters in bf16: small updates arrive, by copies, by what was lost, or in the mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.runtime.compensation import Compensation, ParametersConfig, round_stochastically
from kernels.runtime.optimizer import parameter_groups
from kernels.runtime.runner import run
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

SEEDS = range(10)
SPACING = 2.0**-7
"""Distance between two numbers of bf16 above 1."""


def drifted(rounding: str, steps: int = 200) -> torch.Tensor:
    """Move ones by 1e-3 a step (bf16 cannot tell 1 from 1.001); return what they are."""
    model = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    found = Compensation(model, ParametersConfig(dtype="bf16", rounding=rounding))
    optimizer = torch.optim.SGD(found.shadow(parameter_groups(model, 0.0)), lr=1e-3)
    for _ in range(steps):
        model.weight.grad = torch.full_like(model.weight, -1.0)
        found.begin()
        optimizer.step()
        found.finish()
    return model.weight.detach().float()


@pytest.mark.parametrize("rounding", ["master", "kahan", "stochastic"])
def test_small_updates_add_up(rounding):
    torch.manual_seed(0)
    assert float(drifted(rounding).mean()) == pytest.approx(1.2, abs=SPACING / 2)


def test_without_compensation_they_vanish():
    assert float(drifted("nearest").mean()) == 1.0


def test_stochastic_rounding_is_exact_in_the_mean():
    values = torch.linspace(-3, 3, 1_001)
    means = []
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        rounded = [round_stochastically(values, generator).float() for _ in range(200)]
        means.append(torch.stack(rounded).mean(0))
    spread = torch.stack(means).std(0) / len(SEEDS) ** 0.5
    error = (torch.stack(means).mean(0) - values).abs()
    assert float((error > 5 * spread + 1e-7).float().mean()) < 0.01
    nearest = values.to(torch.bfloat16).float()
    step = (nearest.abs() * 2**-7).clamp(min=1e-3)
    assert bool(((rounded[0] - values).abs() <= step).all())


def test_what_is_not_finite_stays_so():
    odd = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0])
    found = round_stochastically(odd).float()
    assert found[:2].tolist() == [float("inf"), -float("inf")]
    assert bool(found[2].isnan())
    assert float(found[3]) == 0.0


@pytest.mark.parametrize("rounding", ["master", "kahan", "stochastic"])
def test_a_run_with_bf16_parameters_goes_on_bit_for_bit(tmp_path, rounding):
    plan = config(12, 0.02, every=4, parameters=ParametersConfig(dtype="bf16", rounding=rounding))

    def narrow(index):
        return tuple(t.to(torch.bfloat16) for t in batches(index))

    whole = make_model()
    run(whole, narrow, squared, plan)
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    with pytest.raises(KeyboardInterrupt):
        run(make_model(), narrow, squared, plan, [Stop(6)], tmp_path)
    again = make_model()
    assert run(again, narrow, squared, plan, folder=tmp_path).steps == 8
    assert torch.equal(weights(whole), weights(again))


def test_memory_of_the_copies_is_given_back_between_steps():
    model = nn.Linear(8, 8)
    kahan = Compensation(model, ParametersConfig(dtype="bf16", rounding="kahan"))
    assert {s.untyped_storage().size() for s in kahan.shadows.values()} == {0}
    kahan.begin()
    assert {s.untyped_storage().size() for s in kahan.shadows.values()} == {256, 32}
    kahan.drop()
    master = Compensation(nn.Linear(8, 8), ParametersConfig(dtype="bf16", rounding="master"))
    assert {s.untyped_storage().size() for s in master.shadows.values()} == {256, 32}


@pytest.mark.parametrize("changes", [{"dtype": "fp16"}, {"rounding": "up"}])
def test_unknown_formats_are_refused(changes):
    with pytest.raises(ValueError, match="take '"):
        ParametersConfig(**changes)


def test_an_optimizer_on_the_cpu_updates_as_beside_the_model(tmp_path):
    beside, apart = make_model(), make_model()
    run(beside, batches, squared, config(12, 0.02))
    plan = config(12, 0.02, every=4, parameters=ParametersConfig(optimizer_on="cpu"))
    with pytest.raises(KeyboardInterrupt):
        run(apart, batches, squared, plan, callbacks=[Stop(6)], folder=tmp_path)
    run(apart, batches, squared, plan, folder=tmp_path)
    assert weights(apart).equal(weights(beside))
    with pytest.raises(ValueError, match="take rounding='master'"):
        ParametersConfig(optimizer_on="cpu", rounding="kahan")
