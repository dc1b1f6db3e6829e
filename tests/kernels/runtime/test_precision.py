"""Number formats: chosen by measuring, scaled where needed, refused where the device lacks them."""

from __future__ import annotations

import logging

import pytest
import torch

from kernels.runtime import precision
from kernels.runtime.callbacks import History
from kernels.runtime.loss_scale import LossScale
from kernels.runtime.precision import Precision, PrecisionConfig, PrecisionError
from kernels.runtime.runner import run
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

CPU = torch.device("cpu")


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_a_narrow_format_trains_as_well(compute):
    losses = {}
    for name in ("fp32", compute):
        history = History()
        plan = config(80, 0.05, precision=PrecisionConfig(compute=name))
        report = run(make_model(), batches, squared, plan, [history])
        assert report.precision == name
        losses[name] = sum(m.loss for m in history.steps[-20:]) / 20
    assert losses[compute] == pytest.approx(losses["fp32"], rel=0.1)


def test_products_run_in_the_format_and_parameters_stay_wide():
    seen = set()

    def loss(model, batch):
        value = model[0](batch[0])
        seen.add(value.dtype)
        return squared(model, batch)

    model = make_model()
    run(model, batches, loss, config(1, precision=PrecisionConfig(compute="bf16")))
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_loss_scale_is_searched_without_harm():
    """A scale that overflows is halved until it fits; those steps change nothing."""
    model, history = make_model(), History()
    plan = config(12, precision=PrecisionConfig(compute="fp16", first_scale=2.0**24))
    report = run(model, batches, squared, plan, [history])
    skipped = [m.step for m in history.steps if m.skipped]
    assert skipped == list(range(1, len(skipped) + 1))
    assert report.skipped == len(skipped) > 0
    assert all(m.loss_scale > 1 for m in history.steps)
    assert history.steps[0].as_dict()["loss_scale"] == 2.0**23
    assert bool(torch.isfinite(weights(model)).all())


def test_the_scale_grows_after_good_steps_and_is_kept():
    scale = LossScale(4.0, growth_steps=3)
    for overflow in (False, False, False, False, True, True, True, True):
        scale.update(overflow=overflow)
    assert scale.value == 1.0
    for _ in range(4):
        scale.update(overflow=False)
    again = LossScale(8.0, growth_steps=3)
    again.load_state_dict(scale.state_dict())
    for each in (scale, again):
        each.update(overflow=False)
        each.update(overflow=False)
    assert scale.value == again.value == 4.0


def test_auto_takes_the_fastest_and_says_so(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for fastest, other in (("fp32", "bf16"), ("bf16", "fp32")):
        seconds = {fastest: 0.001, other: 0.002}
        found = Precision(PrecisionConfig(compute="auto"), CPU, make_model())
        monkeypatch.setattr(precision, "_fastest", lambda _, __: seconds[found.compute])  # noqa: B023
        found.choose(lambda: torch.zeros(()))
        assert found.compute == fastest
        assert f"computing in {fastest} on cpu: fp32" in caplog.text


def test_auto_does_not_take_what_is_not_finite():
    found = Precision(PrecisionConfig(compute="auto"), CPU, make_model())
    found.choose(lambda: torch.tensor(float("nan") if found.compute == "bf16" else 1.0))
    assert found.compute == "fp32"


def test_a_measured_choice_leaves_no_trace_and_survives_a_resume(tmp_path, monkeypatch):
    plain = make_model(norm=True)
    run(plain, batches, squared, config(6))
    measured = make_model(norm=True)
    plan = config(6, every=2, precision=PrecisionConfig(compute="auto"))
    monkeypatch.setattr(precision, "candidates", lambda _: ["fp32"])
    with pytest.raises(KeyboardInterrupt):
        run(measured, batches, squared, plan, [Stop(3)], tmp_path)

    def unused(*_):
        raise AssertionError("it was chosen before")

    monkeypatch.setattr(precision, "candidates", unused)
    again = make_model(norm=True)
    run(again, batches, squared, plan, folder=tmp_path)
    assert torch.equal(weights(plain), weights(again))
    for mine, other in zip(plain.buffers(), again.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("compute", "told"), [("fp8", "fp8 needs a GPU"), ("tf32", "tf32 is a format of GPUs")]
)
def test_formats_the_device_lacks_are_refused_with_the_reason(compute, told):
    with pytest.raises(PrecisionError, match=told):
        run(make_model(), batches, squared, config(1, precision=PrecisionConfig(compute=compute)))


def test_fp8_needs_a_gpu_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(PrecisionError, match=r"capability \(8, 9\), cuda has \(8, 0\)"):
        precision.require("fp8", torch.device("cuda"))
