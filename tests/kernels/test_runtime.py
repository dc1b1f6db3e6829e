"""The training loop: schedule, accumulation, clipping, resume, failures."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kernels.runtime import checkpoint
from kernels.runtime.callbacks import History
from kernels.runtime.config import RunConfig
from kernels.runtime.runner import NonFiniteError, run
from kernels.runtime.schedule import rate_at


def make_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))


def batches(index: int):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(16, 4, generator=generator)
    return x, x.sum(dim=1, keepdim=True).tanh()


def squared(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).sum(), len(x)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Stop:
    """Kills a run after some steps, as a power cut would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, metrics) -> None:
        if metrics.step == self.after:
            raise KeyboardInterrupt


def test_training_lowers_the_loss_and_reports_every_step():
    model, history = make_model(), History()
    assert run(model, batches, squared, RunConfig(60, 0.05), [history]) == 60
    losses = [m.loss for m in history.steps]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert [m.step for m in history.steps] == list(range(1, 61))
    last = history.steps[-1]
    assert last.items == 16
    assert last.items_per_second > 0
    assert set(last.as_dict()) == {"loss", "learning_rate", "grad_norm", "items_per_second"}
    assert not model.training


def test_a_run_is_a_function_of_its_seed_and_leaves_global_randomness_alone():
    before = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        model = make_model()
        run(model, batches, squared, RunConfig(5, seed=seed))
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("killed", [1, 7, 12])
def test_a_killed_run_continues_bit_for_bit(tmp_path, killed):
    config = RunConfig(15, 0.02, checkpoint_every=3, accumulate=2)
    whole, history = make_model(), History()
    run(whole, batches, squared, config, [history])
    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        run(model, batches, squared, config, [Stop(killed)], tmp_path)
    again, resumed = make_model(), History()
    done = run(again, batches, squared, config, [resumed], tmp_path)
    assert done == 15 - killed // 3 * 3
    assert torch.equal(weights(whole), weights(again))
    assert [m.loss for m in resumed.steps] == [m.loss for m in history.steps][-done:]
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000015"]


def test_a_finished_run_is_only_loaded(tmp_path):
    config = RunConfig(4)
    first, second = make_model(), make_model()
    run(first, batches, squared, config, checkpoint_dir=tmp_path)
    assert run(second, batches, squared, config, checkpoint_dir=tmp_path) == 0
    assert torch.equal(weights(first), weights(second))


def test_accumulation_divides_by_all_valid_items():
    """Two micro-batches of 4 and 12 items must act like one batch of 16."""

    def halves(index):
        x, y = batches(index // 2)
        part = slice(0, 4) if index % 2 == 0 else slice(4, 16)
        return x[part], y[part]

    models = []
    for source, accumulate in ((batches, 1), (halves, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Linear(4, 1).double()

        def doubled(index, source=source):
            return tuple(t.double() for t in source(index))

        run(model, doubled, squared, RunConfig(5, accumulate=accumulate))
        models.append(weights(model))
    torch.testing.assert_close(models[0], models[1], rtol=1e-12, atol=1e-14)


def test_gradients_are_clipped_to_the_norm():
    model, history = nn.Linear(4, 1, bias=False), History()
    start = weights(model).clone()

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * 1e6

    def loss(m, batch):
        return Watch.apply(squared(m, batch)[0]), 16

    run(model, batches, loss, RunConfig(1, clip_norm=0.5), [history])
    taken = [p.grad for p in model.parameters()]
    assert history.steps[0].grad_norm > 1e3
    assert math.isclose(float(torch.cat([g.flatten() for g in taken]).norm()), 0.5, rel_tol=1e-5)
    assert not torch.equal(start, weights(model))


def test_values_that_are_not_finite_stop_before_the_update():
    model = make_model()

    def poisoned(index):
        x, y = batches(index)
        return (x, y * float("nan")) if index == 3 else (x, y)

    kept = {}

    class Keep:
        def on_step(self, metrics):
            kept["weights"] = weights(model).clone()

    with pytest.raises(NonFiniteError, match="step 4"):
        run(model, poisoned, squared, RunConfig(6), [Keep()])
    assert torch.equal(weights(model), kept["weights"])


def test_the_rate_rises_then_falls():
    config = RunConfig(100, 1.0, warmup=0.1, final_rate=0.1)
    rates = [rate_at(s, config) for s in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=2e-3)
    assert rate_at(0, RunConfig(1, 1.0, warmup=0.0)) == 1.0


def test_biases_are_not_decayed():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.bias.fill_(1.0)

    def nothing(m, batch):
        return 0.0 * m(batch[0]).sum(), 16

    before = model.weight.detach().clone()
    run(model, batches, nothing, RunConfig(3, 0.1, weight_decay=0.5))
    assert float(model.bias.detach()) == 1.0
    assert float(model.weight.detach().norm()) < float(before.norm())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"accumulate": 0}, "accumulate"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"betas": (1.0, 0.9)}, "betas"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**({"steps": 1} | changes))


def save_one(tmp_path):
    run(make_model(), batches, squared, RunConfig(2), checkpoint_dir=tmp_path)
    return checkpoint.latest(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    save_one(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="learning_rate"):
        run(make_model(), batches, squared, RunConfig(2, 0.1), checkpoint_dir=tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save_one(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="another model"):
        run(nn.Linear(4, 1), batches, squared, RunConfig(2), checkpoint_dir=tmp_path)


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, file):
    path = save_one(tmp_path)
    (path / file).write_bytes(b"{")
    with pytest.raises(checkpoint.CheckpointError, match="delete it"):
        run(make_model(), batches, squared, RunConfig(2), checkpoint_dir=tmp_path)


def test_a_checkpoint_is_plain_files_and_half_written_ones_do_not_count(tmp_path):
    path = save_one(tmp_path)
    assert sorted(p.name for p in path.iterdir()) == ["state.json", "tensors.safetensors"]
    assert json.loads((path / "state.json").read_text())["step"] == 2
    (tmp_path / ".step-00000009.part").mkdir()
    assert checkpoint.latest(tmp_path) == path
    assert checkpoint.latest(tmp_path / "absent") is None
