"""Early exits: the promise holds over redraws, inputs leave one by one, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from kernels.compression.adaptive import ExitError, ExitRule, MultiExit, calibrate, exit_loss
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import run


def population(count, seed, classes=4):
    """Return probabilities of two early exits and a last one; the surer, the more often alike."""
    rng = np.random.default_rng(seed)
    last = rng.normal(0, 3, (count, classes))
    exits = [last + rng.normal(0, noise, last.shape) for noise in (3.0, 1.0, 0.0)]
    return [softmax(each) for each in exits]


def softmax(x):
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def disagreement(parts, rule):
    sure = np.stack([each.max(1) for each in parts])
    said = np.stack([each.argmax(1) for each in parts])
    leaves = sure >= rule.limit
    leaves[-1] = True
    exits = leaves.argmax(0)
    return float((said[exits, np.arange(len(exits))] != said[-1]).mean())


@pytest.mark.parametrize(
    ("promised", "leaving"), [(0.02, 0.05), pytest.param(0.1, 0.2, marks=pytest.mark.long)]
)
def test_the_promise_holds(promised, leaving):
    truth = population(100_000, 1)
    held, draws, early = 0, 200, []
    for seed in range(draws):
        chosen = np.random.default_rng(seed).integers(0, 100_000, 500)
        rule = calibrate([each[chosen] for each in truth], promised, 0.9)
        held += disagreement(truth, rule) <= promised
        early.append(1 - rule.left[-1])
    lower = stats.beta.ppf(0.025, held, draws - held + 1)
    upper = 1.0 if held == draws else stats.beta.ppf(0.975, held + 1, draws - held)
    assert upper >= 0.9, (held, lower)  # as promised, within what 200 draws can tell
    assert np.mean(early) > leaving  # and it is not kept by letting nobody go


def test_where_exits_never_agree_nobody_leaves_early():
    parts = population(400, 3)
    parts[0] = parts[1] = np.roll(parts[-1], 1, axis=1)
    rule = calibrate(parts, 0.01)
    assert rule.limit == np.inf
    assert rule.left == (0, 0, 1)
    assert rule.seen == 0


def test_where_they_always_agree_all_leave_at_once():
    parts = population(400, 3)
    rule = calibrate([parts[-1]] * 3, 0.01)
    assert rule.left == (1, 0, 0)


def net(seed=0):
    torch.manual_seed(seed)
    stages = [nn.Sequential(nn.Linear(width, 12), nn.ReLU()) for width in (6, 12, 12)]
    return MultiExit(stages, [nn.Linear(12, 3) for _ in range(3)])


def batch(index):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(index))
    return x, torch.bucketize(x[:, 0] * x[:, 1] + x[:, 2], torch.tensor([-0.5, 0.5]))


def test_inputs_leave_one_by_one_with_what_their_exit_says():
    model = net()

    def loss(model, pair):
        return exit_loss(model(pair[0]), pair[1]), len(pair[1])

    run(model, batch, loss, RunConfig(steps=150, optimizer=OptimizerConfig(learning_rate=0.01)))
    x, _ = batch(9_999)
    answers = torch.stack(model(x)).detach()
    limit = float(answers[:2].softmax(2).amax(2).median())
    seen = []
    hooks = [
        s.register_forward_hook(lambda _l, given, _o: seen.append(len(given[0])))
        for s in model.stages
    ]
    logits, exits = model.answer(x, ExitRule(limit, 0.1, 0.95, 0, ()))
    for hook in hooks:
        hook.remove()
    assert set(exits.tolist()) == {0, 1, 2}
    torch.testing.assert_close(logits, answers[exits, torch.arange(64)])
    assert seen == [64, int((exits > 0).sum()), int((exits > 1).sum())]
    all_at_once, exits = model.answer(x, ExitRule(0.0, 0.1, 0.95, 0, ()))
    assert set(exits.tolist()) == {0}
    torch.testing.assert_close(all_at_once, answers[0])


def test_limits_next_to_1_are_kept():
    stages = [nn.Identity(), nn.Identity()]
    model = MultiExit(stages, [nn.Identity(), nn.Identity()])
    logits = torch.tensor([[0.0, 21.0], [0.0, 23.0]])  # in float32 both are 1
    _, exits = model.answer(logits, ExitRule(1 - 5e-10, 0.1, 0.95, 0, ()))
    assert exits.tolist() == [1, 0]
    assert model.training


def test_what_is_taught_is_left_out_of_the_last_exit():
    answers = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    labels = torch.tensor([0, 1, 2, 1, 0])
    exit_loss(answers, labels, teach=1.0).backward()
    alone = answers[1].detach().requires_grad_()
    nn.functional.cross_entropy(alone, labels, reduction="sum").backward()
    assert torch.equal(answers[1].grad, alone.grad)
    with torch.no_grad():
        same = exit_loss([answers[1], answers[1]], labels, teach=1.0)
        assert torch.isclose(same, nn.functional.cross_entropy(answers[1], labels, reduction="sum"))


def test_wrong_input_is_told():
    parts = population(200, 0)
    with pytest.raises(
        ExitError, match=r"200 held-out inputs cannot promise 0\.01.*give 299 or more"
    ):
        calibrate(parts, 0.01)
    assert calibrate(population(299, 0), 0.01).confidence == 0.95
    for wrong, says in (
        ([parts[0]], "two exits or more"),
        ([parts[0], parts[1][:5]], "all alike"),
        ([parts[0], parts[1] * 2], "sum to 1"),
        ([parts[0], parts[1] * float("nan")], "sum to 1"),
        ([parts[0], np.tile([3.0, -2.0, 0.0, 0.0], (200, 1))], "sum to 1"),
    ):
        with pytest.raises(ExitError, match=says):
            calibrate(wrong, 0.1)
    for wrong_share in (0, 1, -1):
        with pytest.raises(ExitError, match="between 0 and 1"):
            calibrate(parts, wrong_share)
    with pytest.raises(ExitError, match="a head per stage"):
        MultiExit([nn.Identity()], [nn.Identity()])
