"""Formats by module: values out of range widen them, clean ones narrow them, and it is logged."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from kernels.runtime.adaptive_precision import AdaptiveFormats, out_of_range
from kernels.runtime.callbacks import History
from kernels.runtime.finite import NonFiniteError
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.runner import Runner, run
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

ADAPTIVE = PrecisionConfig(compute="adaptive", look_every=2, patience=2)


class Loud(nn.Module):
    """Its middle layer gives values that fp16 cannot hold; the others are tame."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.loud, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        with torch.no_grad():
            self.loud.weight.mul_(gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.loud(torch.tanh(self.first(x)))))


def test_a_module_out_of_range_widens_alone_and_the_log_says_why(caplog):
    caplog.set_level(logging.INFO)
    torch.manual_seed(0)
    runner = Runner(Loud(1e6), batches, squared, config(8, precision=ADAPTIVE))
    runner.run()
    formats = runner.precision.adaptive
    assert formats is not None
    assert formats.formats["loud"] == "bf16", "as far as fp32 reaches"
    assert formats.formats["first"] == "fp16"
    moved = [d for d in formats.decisions if d.module == "loud"]
    assert [(d.step, d.before, d.after) for d in moved][:1] == [(0, "fp16", "bf16")]
    assert moved[0].overflow > 0.1
    assert "step 1: loud fp16 -> bf16 (overflow" in caplog.text


def test_training_goes_as_well_as_in_fp32():
    losses = {}
    for plan in (PrecisionConfig(), ADAPTIVE):
        history = History()
        run(make_model(), batches, squared, config(80, 0.05, precision=plan), [history])
        losses[plan.compute] = sum(m.loss for m in history.steps[-20:]) / 20
    assert losses["adaptive"] == pytest.approx(losses["fp32"], rel=0.1)


def test_a_spoilt_step_is_looked_at_at_once_and_data_that_are_broken_still_end_the_run():
    def broken(index):
        x, y = batches(index)
        return (x * float("nan") if index >= 3 else x), y

    model, history = make_model(), History()
    plan = config(20, precision=PrecisionConfig(compute="adaptive", look_every=100))
    with pytest.raises(NonFiniteError, match="step 5"):
        run(model, broken, squared, plan, [history])
    assert [m.skipped for m in history.steps] == [False, False, False, True]
    assert bool(torch.isfinite(weights(model)).all())


def test_after_clean_looks_it_narrows_again():
    model = nn.Linear(4, 4)
    found = AdaptiveFormats(model, torch.device("cpu"), every=1, share=0.01, patience=3)
    seen = []
    with found.active():
        for step in range(10):
            found.begin(step)
            model(torch.full((2, 4), 1e6 if step == 2 else 1.0))
            found.decide(step, overflow=False)
            seen.append(found.formats[""])
    assert seen == ["fp16"] * 2 + ["bf16"] * 3 + ["fp16"] * 5
    assert "forward" not in vars(model)


def test_modules_compute_in_their_formats():
    model, seen = make_model(), []
    found = AdaptiveFormats(model, torch.device("cpu"), every=1, share=0.0, patience=1)
    found.load_state_dict({"units": {"0": [2, 0], "3": [1, 0]}})
    model[0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    model[3].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with found.active():
        model(batches(0)[0])
    assert seen == [torch.float32, torch.bfloat16]


def test_formats_and_recomputing_share_a_module():
    """Both replace the forward pass of the same layers, one within the other."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    memory = MemoryConfig(recompute="full")
    run(model, batches, squared, config(3, precision=ADAPTIVE, memory=memory))
    assert all("forward" not in vars(m) for m in model.modules())


def test_a_resumed_run_keeps_its_formats(tmp_path):
    plan = config(12, every=4, precision=ADAPTIVE)

    def fresh():
        torch.manual_seed(0)
        return Loud(1e6)

    whole, again = fresh(), fresh()
    run(whole, batches, squared, plan)
    with pytest.raises(KeyboardInterrupt):
        run(fresh(), batches, squared, plan, [Stop(7)], tmp_path)
    run(again, batches, squared, plan, folder=tmp_path)
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize(
    ("dtype", "over", "under"),
    [(torch.float16, 0.25, 0.25), (torch.bfloat16, 0.0, 0.0), (torch.float32, 0.0, 0.0)],
)
def test_shares_out_of_range(dtype, over, under):
    assert out_of_range(torch.tensor([1e5, 1.0, 0.0, 1e-9]), dtype) == (over, under)
    assert out_of_range(torch.tensor([float("nan"), 1.0]), dtype)[0] == 0.5
