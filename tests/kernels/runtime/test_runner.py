"""The training loop: schedule, accumulation, clipping, resume, failures."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.callbacks import History
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.checkpoint_files import CheckpointError
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.ema import EmaConfig
from kernels.runtime.evaluation import EvaluationConfig
from kernels.runtime.finite import NonFiniteConfig, NonFiniteError
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.runner import Runner, run
from kernels.runtime.schedule import ScheduleConfig, factor_at
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights


def test_training_lowers_the_loss_and_reports_every_step():
    model, history = make_model(), History()
    assert run(model, batches, squared, config(60, 0.05), [history]).steps == 60
    losses = [m.loss for m in history.steps]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert [m.step for m in history.steps] == list(range(1, 61))
    last = history.steps[-1]
    assert last.items == 16
    assert last.items_per_second > 0
    assert 0 <= last.stall_seconds < 1
    told = {"loss", "learning_rate", "grad_norm", "items_per_second", "stall_seconds"}
    assert set(last.as_dict()) == told
    assert not model.training


def test_a_run_is_a_function_of_its_seed_and_leaves_global_randomness_alone():
    before = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        model = make_model()
        run(model, batches, squared, config(5, seed=seed))
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("killed", [1, 7, 12])
def test_a_killed_run_continues_bit_for_bit(tmp_path, killed):
    plan = config(15, 0.02, every=3, batches=2)
    whole, history = make_model(), History()
    run(whole, batches, squared, plan, [history])
    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        run(model, batches, squared, plan, [Stop(killed)], tmp_path)
    again, resumed = make_model(), History()
    done = run(again, batches, squared, plan, [resumed], tmp_path).steps
    assert done == 15 - killed // 3 * 3
    assert torch.equal(weights(whole), weights(again))
    assert [m.loss for m in resumed.steps] == [m.loss for m in history.steps][-done:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000012", "step-00000015"]


def test_a_finished_run_is_only_loaded(tmp_path):
    first, second = make_model(), make_model()
    run(first, batches, squared, config(4), folder=tmp_path)
    report = run(second, batches, squared, config(4), folder=tmp_path)
    assert (report.steps, report.finished) == (0, 4)
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

        run(model, doubled, squared, config(5, batches=accumulate))
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

    run(model, batches, loss, config(1, clipping=ClippingConfig(max_norm=0.5)), [history])
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
        run(model, poisoned, squared, config(6), [Keep()])
    assert torch.equal(weights(model), kept["weights"])


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_rate_rises_then_falls(name):
    plan = ScheduleConfig(name=name, warmup=0.1, final=0.1)
    rates = [factor_at(s, 100, plan) for s in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert rates[10] == 1.0
    if name == "constant":
        assert set(rates[10:]) == {1.0}
    else:
        assert all(a > b for a, b in pairwise(rates[10:]))
        assert rates[-1] == pytest.approx(0.1, abs=1.1e-2)
    assert factor_at(0, 1, ScheduleConfig(warmup=0.0)) == 1.0


def test_biases_are_not_decayed():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.bias.fill_(1.0)

    def nothing(m, batch):
        return 0.0 * m(batch[0]).sum(), 16

    before = model.weight.detach().clone()
    run(model, batches, nothing, config(3, 0.1, decay=0.5))
    assert float(model.bias.detach()) == 1.0
    assert float(model.weight.detach().norm()) < float(before.norm())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(0), "steps must be at least 1"),
        (lambda: AccumulationConfig(batches=0), "accumulation.batches"),
        (lambda: AccumulationConfig(parts=4, max_parts=2), "below parts 4; raise it"),
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate must be positive"),
        (lambda: OptimizerConfig(betas=(1.0, 0.9)), "betas"),
        (lambda: OptimizerConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: OptimizerConfig(name="lion"), "take 'adamw' or 'sgd'"),
        (lambda: ScheduleConfig(warmup=1.0), "warmup"),
        (lambda: ScheduleConfig(name="step"), "take 'cosine'"),
        (lambda: ClippingConfig(max_norm=-1.0), "kind='none' switches clipping off"),
        (lambda: ClippingConfig(kind="value"), "take 'norm'"),
        (lambda: ClippingConfig(quantile=0.0), "quantile"),
        (lambda: NonFiniteConfig(action="ignore"), "take 'raise' or 'skip'"),
        (lambda: NonFiniteConfig(limit=0), "limit"),
        (lambda: EmaConfig(decay=1.0), "decay"),
        (lambda: EvaluationConfig(patience=2), "needs evaluation.every"),
        (lambda: EvaluationConfig(goal="low"), "take 'min' or 'max'"),
        (lambda: PrecisionConfig(compute="int8"), "take 'auto'"),
        (lambda: CheckpointConfig(keep_last=0), "keep_last"),
        (lambda: CheckpointConfig(second_every=3), "together, or neither"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_run_that_asks_for_an_evaluation_needs_one():
    plan = config(3, evaluation=EvaluationConfig(every=1))
    with pytest.raises(ValueError, match="evaluate="):
        Runner(make_model(), batches, squared, plan)


def test_steps_that_are_not_finite_are_skipped_up_to_a_limit():
    def poisoned(index):
        x, y = batches(index)
        return (x, y * float("nan")) if index in bad else (x, y)

    plan = config(8, non_finite=NonFiniteConfig(action="skip", limit=2))
    bad, history = {2, 3, 6}, History()
    report = run(make_model(), poisoned, squared, plan, [history])
    assert report.skipped == 3
    assert [m.step for m in history.steps if m.skipped] == [3, 4, 7]
    bad = {2, 3, 4}
    with pytest.raises(NonFiniteError, match=r"step 5.*, 3 in a row"):
        run(make_model(), poisoned, squared, plan)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda m, b: (((m(b[0]) - b[1]) ** 2), 16), r"shape \(16, 1\); return the sum"),
        (lambda m, b: (((m(b[0]) - b[1]) ** 2).sum().detach(), 16), "without gradient"),
    ],
)
def test_a_loss_that_is_no_sum_is_refused(loss, told):
    with pytest.raises(ValueError, match=told):
        run(make_model(), batches, loss, config(2))


def test_parameters_without_gradient_are_named_once(caplog):
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "left": nn.Linear(4, 1)})

    def loss(m, batch):
        return squared(m["used"], batch)

    run(model, batches, loss, config(3))
    told = [r.message for r in caplog.records if "no gradient reaches" in r.message]
    assert told == ["no gradient reaches left.weight, left.bias: not used by the loss?"]


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        Runner(nn.Tanh(), batches, squared, config(1))


def test_an_optimizer_of_other_tensors_is_refused():
    old = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds 4 tensors that are not trained"):
        Runner(make_model(), batches, squared, config(1), build_optimizer=lambda _: old)
    model = make_model()
    made = Runner(
        model,
        batches,
        squared,
        config(2),
        build_optimizer=lambda groups: torch.optim.Adagrad(groups, lr=0.1),
    )
    before = weights(model)
    made.run()
    assert isinstance(made.optimizer, torch.optim.Adagrad)
    assert not torch.equal(before, weights(model))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("fused", [True, False])
def test_fused_and_plain_optimizers_agree(name, fused):
    def trained(choice):
        model = make_model().double()
        optimizer = OptimizerConfig(name=name, fused=choice, learning_rate=0.01)
        plan = config(5)
        plan = type(plan)(steps=5, optimizer=optimizer)
        run(model, lambda i: tuple(t.double() for t in batches(i)), squared, plan)
        return weights(model)

    torch.testing.assert_close(trained(fused), trained(None), rtol=1e-12, atol=1e-14)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(make_model(), batches, squared, config(2), folder=tmp_path)
    with pytest.raises(CheckpointError, match="another optimizer"):
        run(make_model(), batches, squared, config(2, 0.1), folder=tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(make_model(), batches, squared, config(2), folder=tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        run(nn.Linear(4, 1), batches, squared, config(2), folder=tmp_path)


def test_a_run_without_progress_ends_early_and_keeps_its_best(tmp_path):
    figures = iter([5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 1.0])
    plan = config(
        40,
        evaluation=EvaluationConfig(every=2, patience=3),
        checkpoint=CheckpointConfig(every=2, keep_last=1, keep_best=1),
    )
    runner = Runner(
        make_model(), batches, squared, plan, folder=tmp_path, evaluate=lambda _: next(figures)
    )
    report = runner.run()
    assert (report.best, report.best_step, report.finished) == (3.0, 6, 12)
    assert report.stopped == "no progress since step 6"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000006", "step-00000012"]
    # Once more: it had ended, and is only loaded.
    again = Runner(make_model(), batches, squared, plan, folder=tmp_path, evaluate=lambda _: 0.0)
    report = again.run()
    assert (report.steps, report.stopped) == (0, "no progress since step 6")


@pytest.mark.parametrize(
    "parts",
    [
        {"parameters": ParametersConfig(dtype="bf16", rounding="master")},
        {"parameters": ParametersConfig(optimizer_on="cpu")},
        {"ema": EmaConfig(decay=0.9)},
    ],
    ids=["bf16", "on the cpu", "averaged"],
)
def test_weights_that_are_loaded_before_run_are_the_ones_trained_on(parts):
    """Copies and averages were made when the Runner was, of the weights of then."""
    narrow = "parameters" in parts and parts["parameters"].dtype == "bf16"

    def source(index):
        return tuple(t.bfloat16() if narrow else t for t in batches(index))

    wanted, found = make_model(), make_model()
    with torch.no_grad():
        for parameter in wanted.parameters():
            parameter.mul_(-2.0).add_(0.5)
    loaded = {name: t.clone() for name, t in wanted.state_dict().items()}
    plan = config(4, **parts)
    run(wanted, source, squared, plan)
    runner = Runner(found, source, squared, plan)
    found.load_state_dict(loaded)
    runner.run()
    assert torch.equal(weights(found), weights(wanted))


def test_an_evaluation_changes_nothing():
    def evaluate(model):
        assert not model.training
        return float(torch.rand(()))

    results = []
    for every in (0, 1):
        model = make_model(norm=True)
        plan = config(6, evaluation=EvaluationConfig(every=every))
        Runner(model, batches, squared, plan, evaluate=evaluate).run()
        results.append(weights(model))
    assert torch.equal(*results)


def test_the_average_of_the_weights_is_judged_and_kept():
    model, seen = make_model(norm=True), []

    def evaluate(m):
        seen.append(weights(m))
        return 0.0

    plan = config(30, 0.05, ema=EmaConfig(decay=0.9), evaluation=EvaluationConfig(every=10))
    raw, mean = [], None

    class Watch:
        def on_step(self, metrics):
            nonlocal mean
            raw.append(weights(model))
            decay = min(0.9, (1 + metrics.step) / (10 + metrics.step))
            mean = decay * (start if mean is None else mean) + (1 - decay) * raw[-1]

    start = weights(model)
    Runner(model, batches, squared, plan, callbacks=[Watch()], evaluate=evaluate).run()
    torch.testing.assert_close(weights(model), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[-1], mean, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(raw[-1], mean, atol=1e-3)
    assert not math.isnan(float(mean.sum()))
