"""Ways to execute a step: all give the same gradients, the measured one is taken, breaks named."""

from __future__ import annotations

import contextlib
import logging
import math

import pytest
import torch
from torch import nn

from kernels.runtime.compilation import (
    Compilation,
    CompileConfig,
    CompileError,
    Trial,
    missing_compiler,
)
from kernels.runtime.config import RunConfig
from kernels.runtime.graph_breaks import in_words
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.runner import Runner
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

# Traces as inductor does, without its 15 seconds of C++.
TRACED = {"backend": "aot_eager", "expected_seconds": 0.0}


class Branching(nn.Module):
    """Reads a number in the middle of its forward pass."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)

    def forward(self, x):
        y = self.inner(x)
        if y.sum().item() > 1e9:
            y = -y
        return y.tanh()


def step_of(model):
    def step():
        value, _ = squared(model, batches(0))
        value.backward()
        return value.detach()

    return step


def gradients_in(model, compilation):
    model.zero_grad()
    torch.manual_seed(0)
    with compilation.active():
        step_of(model)()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("mode", ["compile", "export"])
def test_every_mode_gives_the_gradients_of_eager(mode):
    model = make_model(norm=True)
    model[3].p = 0.0  # compiled dropout draws other numbers
    before = model[1].running_mean.clone()
    wanted = gradients_in(model, Compilation(CompileConfig(), model))
    moved = model[1].running_mean.clone()
    model[1].running_mean.copy_(before)
    compilation = Compilation(CompileConfig(mode=mode, backend="aot_eager"), model)
    found = gradients_in(model, compilation)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(model[1].running_mean, moved)
    assert "forward" not in vars(model)
    with (
        compilation.active()
    ):  # other rows (compiled anew for another number of them), and evaluation
        x = torch.randn(5 if mode == "export" else 16, 4)
        model(x).sum().backward()
        model.eval()
        again = model(x)
    torch.testing.assert_close(model(x), again)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
def test_auto_measures_all_and_keeps_the_fastest_over_a_resume(caplog):
    model = Branching()
    compilation = Compilation(CompileConfig(mode="auto", **TRACED), model)
    assert (compilation.mode, compilation.is_chosen) == ("eager", False)
    with caplog.at_level(logging.INFO):
        compilation.choose(step_of(model), 10**6)
    # A branch on values cannot be exported at all; it breaks a compiled graph in two.
    assert set(compilation.trials) == {"eager", "compile"}
    assert "export is left out: torch.export failed" in caplog.text
    seconds = {mode: t.step_seconds for mode, t in compilation.trials.items()}
    assert compilation.mode == min(seconds, key=seconds.get)
    assert 0 < seconds["eager"] < 1
    (found,) = compilation.breaks
    assert found.where.startswith("test_compilation.py:")
    assert "a number is read out of a tensor" in found.what
    assert str(found) in caplog.text
    other = Compilation(CompileConfig(mode="auto"), model)
    other.load_state_dict({"mode": "export"})
    assert (other.mode, other.is_chosen) == ("export", True)


def test_a_run_keeps_its_mode_over_a_resume(tmp_path):
    """Exported, so without a compiler; dropout off, whose numbers eager would draw otherwise."""
    ends = []
    for mode, folder in (("eager", None), ("export", tmp_path), ("export", tmp_path)):
        model = make_model(norm=True)
        model[3].p = 0.0
        plan = config(6, every=2, compilation=CompileConfig(mode=mode))
        stop = (Stop(4),) if folder and not (tmp_path / "step-00000004").exists() else ()
        with contextlib.suppress(KeyboardInterrupt):
            Runner(model, batches, squared, plan, folder=folder, callbacks=stop).run()
        ends.append(weights(model))
    assert not torch.equal(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_plans_of_memory_do_not_go_with_compiling():
    with pytest.raises(ValueError, match="give one of them"):
        RunConfig(
            steps=1,
            compilation=CompileConfig(mode="auto"),
            memory=MemoryConfig(packing="lossless"),
        )


def test_compiling_is_not_tried_where_it_cannot_pay(caplog):
    model = make_model()
    compilation = Compilation(CompileConfig(mode="auto"), model)
    with caplog.at_level(logging.INFO):
        compilation.choose(step_of(model), 10)
    assert compilation.mode == "eager"
    assert set(compilation.trials) == {"eager"}
    assert "compiling longer" in caplog.text


def test_a_missing_compiler_is_told(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    model = make_model()
    with pytest.raises(CompileError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        Compilation(CompileConfig(mode="compile"), model)
    compilation = Compilation(CompileConfig(mode="auto", expected_seconds=0), model)
    with caplog.at_level(logging.INFO):
        compilation.choose(step_of(model), 10)
    assert "compile" not in compilation.trials
    assert "torch.compile is not tried: torch.compile needs a C++ compiler" in caplog.text
    assert not missing_compiler("aot_eager", torch.device("cpu"))
    assert not missing_compiler("inductor", torch.device("cuda"))


def test_a_compiler_that_fails_is_a_clear_error():
    model = make_model()
    compilation = Compilation(CompileConfig(mode="compile", backend="none of these"), model)
    with (
        pytest.raises(CompileError, match=r"none of these.*take compilation.mode 'eager'"),
        compilation.active(),
    ):
        step_of(model)()


def test_a_loss_that_is_not_finite_rules_a_way_out():
    model = make_model()
    plain = step_of(model)

    def step():  # whatever replaces the forward pass gives NaN
        return plain() * (math.nan if "forward" in vars(model) else 1.0)

    compilation = Compilation(CompileConfig(mode="auto", **TRACED), model)
    compilation.choose(step, 10**6)
    assert compilation.mode == "eager"
    assert compilation.trials["export"].step_seconds == math.inf
    assert Trial(3.0, 1.0).compile_seconds == 2.0


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("Data-dependent branching\n Explanation: ...", "branches on the values"),
        ("Dynamic shape operator\n aten.nonzero.default", "shape of a result depends"),
        ("Attempted to call function marked as skipped", "cannot be traced"),
        ("Something new", "Something new"),
        ("", "no reason given"),
    ],
)
def test_reasons_in_words(reason, what):
    assert what in in_words("a.py:1 in f", reason).what


@pytest.mark.parametrize("given", [{"mode": "jit"}, {"backend": ""}, {"expected_seconds": -1.0}])
def test_settings_are_checked(given):
    with pytest.raises(ValueError, match="compilation"):
        CompileConfig(**given)
