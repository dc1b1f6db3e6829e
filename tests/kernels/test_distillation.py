"""Distillation: each part against its formula, students that learn more, what is refused."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn
from torch.nn import functional

from kernels.compression import distillation
from kernels.compression.distillation import (
    DistillationConfig,
    DistillationError,
    Learner,
    attention,
    relations,
    softened,
)
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig
from kernels.runtime.runner import Runner, run

CONFIG = RunConfig(steps=200, optimizer=OptimizerConfig(learning_rate=0.02))


def net(width, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3),
    )  # fmt: skip


def rule(x):
    """A teacher that is no net: logits of a fixed function of the image."""
    return (
        torch.stack([x[:, 0, :3].mean((1, 2)), x[:, 0, 5:].mean((1, 2)), x.std((1, 2, 3)) - 1], 1)
        * 20
    )


def batch(index, wrong=0.4):
    """Images whose labels are often wrong; what is right the teacher knows."""
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(32, 1, 8, 8, generator=generator)
    labels = rule(x).argmax(1)
    spoilt = torch.rand(32, generator=generator) < wrong
    labels[spoilt] = torch.randint(3, (int(spoilt.sum()),), generator=generator)
    return x, labels


def on_labels(answers, pair):
    return functional.cross_entropy(answers, pair[1], reduction="sum"), len(answers)


def accuracy(model):
    judged = [batch(70_000 + index, wrong=0) for index in range(16)]
    x, labels = (torch.cat(each) for each in zip(*judged, strict=True))
    with torch.no_grad():
        return float((model(x).argmax(1) == labels).float().mean())


def test_softened_answers_are_the_published_formula():
    ours, theirs = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    want = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(softened(ours, theirs, 3.0), want)
    assert softened(theirs, theirs, 3.0) == 0
    # As the temperature grows it becomes the squared distance of centred logits (Hinton, eq. 4).
    apart = (ours - ours.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    torch.testing.assert_close(
        softened(ours, theirs, 1e4), apart.square().sum(1).mean() / 8, rtol=1e-3, atol=0
    )


def test_a_yes_or_no_is_two_classes():
    ours, theirs = torch.randn(6), torch.randn(6)
    p, q = torch.sigmoid(theirs / 2), torch.sigmoid(ours / 2)
    want = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(softened(ours, theirs[:, None], 2.0), want)


def test_attention_asks_where_and_not_how_much():
    one = torch.rand(2, 5, 6, 6)
    assert attention(one * 7, one) < 1e-6
    assert attention(one.flip(3), one) > 0.01
    other = torch.rand(2, 9, 6, 6)
    assert attention(one, other) > 0
    assert attention(torch.rand(2, 5, 12, 12), other).shape == ()
    assert attention(torch.rand(2, 7, 5), torch.rand(2, 7, 9)) > 0


def test_relations_do_not_change_when_all_is_turned_moved_or_scaled():
    one = torch.randn(6, 8).double()
    turn = torch.linalg.qr(torch.randn(8, 8).double())[0]
    assert relations(one @ turn * 3 + 5, one) < 1e-10
    assert relations(torch.randn(6, 4).double(), one) > 0.01
    assert relations(one[:2], one[:2]) == 0
    identical = torch.ones(4, 3, requires_grad=True)
    relations(identical, one[:4].float()).backward()
    assert torch.isfinite(identical.grad).all()


EVERYTHING = DistillationConfig(
    labels=0.2, answers=1.0, features=0.5, attention=0.5, relations=0.5, layers={"3": "3"}
)


def test_a_student_learns_more_from_a_teacher_than_from_wrong_labels():
    plain, taught = net(8, 1), net(8, 1)
    run(plain, batch, lambda model, pair: on_labels(model(pair[0]), pair), CONFIG)
    config = DistillationConfig(labels=0, answers=1)
    learner = Learner(taught, rule, batch(0)[0], config)
    run(learner, batch, learner.loss(on_labels), CONFIG)
    assert accuracy(learner.student) > accuracy(plain) + 0.05
    assert accuracy(learner.student) > 0.7


def test_a_run_that_goes_on_ends_at_the_same_bits_and_the_teacher_is_not_saved(tmp_path):
    teacher = net(8, 5)
    before = [p.clone() for p in teacher.parameters()]
    ends = []
    for name, stops in (("whole", ()), ("parts", (5,))):
        for steps in (*stops, 12):
            learner = Learner(net(4, 1), teacher, batch(0)[0], EVERYTHING)
            config = RunConfig(steps=12, checkpoint=CheckpointConfig(every=5))

            def batches(index, limit=steps):
                if index >= limit:
                    raise IndexError
                return batch(index)

            runner = Runner(
                learner, batches, learner.loss(on_labels), config, folder=tmp_path / name
            )
            if steps < 12:
                with pytest.raises(RuntimeError, match="ended before batch 5"):
                    runner.run()
            else:
                runner.run()
        ends.append(nn.utils.parameters_to_vector(learner.student.parameters()))
    assert torch.equal(*ends)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert not any("teacher" in key or key.startswith("_") for key in learner.state_dict())
    assert any(key.startswith("widen.") for key in learner.state_dict())


def test_modes_of_both_nets_stay_as_they_were():
    student, teacher = net(4).train(), net(8).train()
    student[3].eval()
    Learner(student, teacher, batch(0)[0], EVERYTHING)
    assert student.training
    assert not student[3].training
    assert teacher.training
    assert all(p.requires_grad for p in teacher.parameters())


def test_the_teacher_moves_with_the_student():
    learner = Learner(nn.Linear(4, 2), nn.Linear(4, 2), torch.zeros(2, 4)).double()
    total, _ = learner.loss(lambda answers, batch: (answers.sum() * 0, len(answers)))(
        learner, (torch.zeros(2, 4, dtype=torch.float64),)
    )
    assert total.dtype == torch.float64


def test_maps_are_seen_before_what_changes_them_in_place():
    torch.manual_seed(0)
    pair = [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))
        for _ in range(2)
    ]
    x = batch(0)[0]
    with distillation._outputs(pair[0], ["0"]) as seen:
        pair[0](x)
    assert seen["0"].min() < 0


def test_parts_of_the_loss_add_up():
    x, labels = batch(1)
    teacher = net(8, 5)

    def value(**weights):
        torch.manual_seed(3)
        config = DistillationConfig(labels=0, answers=0, layers={"3": "3"}, **weights)
        learner = Learner(net(4, 1), teacher, x, config)
        return learner.loss(on_labels)(learner, (x, labels))[0]

    parts = value(features=0.3) + value(attention=0.7) + value(relations=0.9)
    torch.testing.assert_close(value(features=0.3, attention=0.7, relations=0.9), parts)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"labels": -1.0}, "negative"),
        ({"labels": 0.0, "answers": 0.0}, "one of them above 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"attention": 1.0}, r"layers=\{student: teacher\}"),
    ],
)
def test_wrong_settings_name_the_fix(settings, says):
    with pytest.raises(ValueError, match=says):
        DistillationConfig(**settings)


def test_what_does_not_go_together_is_told_before_training():
    x = batch(0)[0]
    with pytest.raises(DistillationError, match=r"answers \(32, 3\), the teacher \(32, 5\)"):
        Learner(net(4), nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), x)
    for layers, says in (
        ({"nine": "3"}, "no layer 'nine'"), ({"3": "9"}, "no layer '9'"), ({"3": "6"}, "as many"),
    ):  # fmt: skip
        with pytest.raises(DistillationError, match=says):
            Learner(net(4), net(8), x, DistillationConfig(features=1, layers=layers))
    with pytest.raises(
        DistillationError, match=r"attention needs maps or tokens: 6 gives \(32, 8\)"
    ):
        Learner(net(4), net(8), x, DistillationConfig(attention=1, layers={"6": "6"}))
    with pytest.raises(DistillationError, match="is no net"):
        Learner(net(4), rule, x, DistillationConfig(attention=1, layers={"3": "3"}))


def test_the_example_of_the_docs_runs():
    assert doctest.testmod(distillation).failed == 0
