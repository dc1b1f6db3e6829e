"""Clipping by each rule, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kernels.runtime.clipping import AGC_FLOOR, Clipper, ClippingConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights


def held(model: nn.Module, scale: float = 1.0):
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.grad = scale * torch.randn(p.shape, generator=generator)
    return [(n, p.detach(), p.grad) for n, p in model.named_parameters()]


def norm_of(each) -> float:
    return float(torch.cat([g.flatten() for _, _, g in each]).norm())


@pytest.mark.parametrize("scale", [0.001, 1.0, 1e6])
def test_by_the_global_norm(scale):
    each = held(make_model(), scale)
    before = norm_of(each)
    Clipper(ClippingConfig(max_norm=0.5))(each, before)
    assert norm_of(each) == pytest.approx(min(before, 0.5), rel=1e-5)


def test_none_leaves_them_alone():
    each = held(make_model(), 1e6)
    before = norm_of(each)
    Clipper(ClippingConfig(kind="none"))(each, before)
    assert norm_of(each) == before


def test_no_unit_exceeds_its_share():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(20, 7))
    with torch.no_grad():
        model[0].weight[2] = 0.0
    each = held(model)
    before = [g.clone() for _, _, g in each]
    Clipper(ClippingConfig(kind="agc", share=0.1, exclude=("2.",)))(each, norm_of(each))
    weight, bias, *last = each
    for unit in range(5):
        limit = 0.1 * max(float(weight[1][unit].norm()), AGC_FLOOR)
        found = float(weight[2][unit].norm())
        assert found == pytest.approx(min(limit, float(before[0][unit].norm())), rel=1e-4)
        cosine = torch.cosine_similarity(weight[2][unit].flatten(), before[0][unit].flatten(), 0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-5)
    assert float(bias[2].norm()) <= 0.1 * float(bias[1].norm()) * 1.0001
    for after, old in zip(last, before[2:], strict=True):
        assert torch.equal(after[2], old), "excluded"


def test_by_a_moving_quantile():
    clipper = Clipper(ClippingConfig(kind="auto", quantile=0.25, window=5))
    norms = np.random.default_rng(1).uniform(0.5, 9, 40)
    for n, norm in enumerate(norms):
        gradient = torch.full((4,), float(norm) / 2)
        clipper([("p", gradient, gradient)], float(norm))
        limit = float(np.quantile(norms[max(0, n - 4) : n + 1], 0.25))
        assert clipper.limit == pytest.approx(limit)
        assert float(gradient.norm()) == pytest.approx(min(norm, limit), rel=1e-5)


def test_the_window_survives_a_resume(tmp_path):
    plan = config(12, every=4, clipping=ClippingConfig(kind="auto", window=6))
    whole, again = make_model(), make_model()
    run(whole, batches, squared, plan)
    with pytest.raises(KeyboardInterrupt):
        run(make_model(), batches, squared, plan, [Stop(7)], tmp_path)
    run(again, batches, squared, plan, folder=tmp_path)
    assert torch.equal(weights(whole), weights(again))


def test_a_limit_below_the_decay_is_refused():
    sgd = OptimizerConfig(name="sgd", weight_decay=0.01)
    with pytest.raises(ValueError, match="they would only shrink; decay less"):
        RunConfig(steps=1, optimizer=sgd, clipping=ClippingConfig(kind="agc", share=0.01))
