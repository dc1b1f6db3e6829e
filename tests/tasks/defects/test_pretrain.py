"""Pre-training: batches by number, the same weights again, also after a kill, heads that learn."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch

from kernels.runtime.job import run_job
from tasks.defects.pretrain.heads import (
    Pretrained,
    PretrainLoss,
    instance_loss,
    mask_loss,
    to_input,
)
from tasks.defects.pretrain.images import CELL, FAMILIES, draw_batch, framed
from tasks.defects.pretrain.job import pretrain_job
from tasks.defects.pretrain.recipe import PretrainConfig, with_changes
from tasks.defects.pretrain.train import pretrain
from tasks.defects.textures.defects import DEFECTS

TINY = PretrainConfig(steps=4, surfaces=2, crop=32, checkpoint_every=2)


class KilledError(Exception):
    pass


class KillAfter:
    def __init__(self, step):
        self.step = step

    def on_step(self, metrics):
        if metrics.step == self.step:
            raise KilledError


class Heard:
    def __init__(self):
        self.steps = []

    def on_step(self, metrics):
        self.steps.append(metrics.step)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(config, folder=None, callbacks=()):
    model = Pretrained.fresh(config.seed)
    run_job(pretrain_job(config, model, partial(draw_batch, config)), folder, callbacks)
    return model.state_dict()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_is_a_function_of_its_number():
    config = PretrainConfig(surfaces=3, crop=48)
    one, again, other = draw_batch(config, 5), draw_batch(config, 5), draw_batch(config, 6)
    for field in fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(again, field.name))
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(
        one.pixels, draw_batch(PretrainConfig(surfaces=3, crop=48, seed=1), 5).pixels
    )


def test_a_batch_holds_two_renderings_of_each_of_two_siblings():
    config = PretrainConfig(surfaces=6, crop=48)
    batch = draw_batch(config, 0)
    assert batch.pixels.shape == (24, 48, 48)
    assert batch.masks.shape == (24, 48 // CELL, 48 // CELL)
    assert np.bincount(batch.instances).tolist() == [2] * 12
    assert batch.families.shape == (24, len(FAMILIES))
    assert batch.families.sum(1) == pytest.approx(np.ones(24), abs=1e-5)
    assert (batch.kinds[::2] == batch.kinds[1::2]).all()
    assert not batch.masks[batch.kinds == 0].any()
    assert 0 <= batch.kinds.min() <= batch.kinds.max() <= len(DEFECTS)
    assert to_input(batch).shape == (24, 3, 48, 48)


def test_all_types_and_flawless_images_are_drawn():
    config = PretrainConfig(surfaces=8, crop=32)
    kinds = np.concatenate([draw_batch(config, index).kinds for index in range(12)])
    share = np.bincount(kinds, minlength=len(DEFECTS) + 1) / len(kinds)
    assert share.min() > 0.01
    assert 0.1 < share[0] < 0.4


def test_a_border_is_smooth_and_leaves_most_of_the_part():
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = framed(np.full((96, 96), 0.6, np.float32), rng)
        assert found.shape == (96, 96)
        assert 0 <= found.min() <= found.max() <= 1
        assert found[40:56, 40:56] == pytest.approx(np.full((16, 16), 0.6), abs=0.25)


def test_two_runs_give_the_same_weights_and_other_seeds_others():
    first = trained(TINY)
    assert equal(first, trained(TINY))
    assert not equal(first, trained(PretrainConfig(steps=4, surfaces=2, crop=32, seed=1)))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    with pytest.raises(KilledError):
        trained(TINY, tmp_path, [KillAfter(3)])

    heard = Heard()
    assert equal(trained(TINY, tmp_path, [heard]), trained(TINY))
    assert heard.steps == [3, 4]  # it went on, and did not begin anew


def test_the_process_beside_draws_the_same_images():
    report, content = pretrain(TINY)
    assert report.finished == 4
    again = Pretrained.fresh(TINY.seed)
    run_job(pretrain_job(TINY, again, partial(draw_batch, TINY)))
    from tasks.defects.weights import pack

    expected = pack(again.net, again.mask, {"steps": "4", "seed": "0"})
    assert hashlib.sha256(content).digest() == hashlib.sha256(expected).digest()


def test_the_heads_learn_a_batch_by_heart():
    config = PretrainConfig(surfaces=2, crop=32, compute="fp32")
    batch, loss, model = draw_batch(config, 0), PretrainLoss(config), Pretrained.fresh(0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = None
    for _ in range(30):
        value, count = loss(model, batch)
        first = first or float(value.detach()) / count
        optimizer.zero_grad()
        (value / count).backward()
        optimizer.step()
    assert float(value.detach()) / count < 0.5 * first
    assert set(loss.last) == {"mask", "kind", "kind_there", "family", "instance"}


def test_the_mask_loss_is_least_for_the_right_mask():
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, 2:4, 2:6] = 1
    right, wrong = 12 * (2 * masks - 1), 12 * (2 * masks.flip(3).roll(3, 2) - 1)
    assert mask_loss(right, masks) < 0.02 < mask_loss(torch.zeros_like(masks), masks)
    assert mask_loss(wrong, masks) > mask_loss(torch.zeros_like(masks), masks)


def test_the_instance_loss_is_least_when_renderings_agree():
    instances = torch.tensor([0, 0, 1, 1])
    apart = torch.eye(2).repeat_interleave(2, 0)
    mixed = torch.eye(2).repeat(2, 1)
    assert instance_loss(apart, instances, 0.1) < 0.01
    assert instance_loss(mixed, instances, 0.1) > 5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop": 40}, "multiple of 16"),
        ({"surfaces": 1}, "at least 2"),
        ({"flawless": 1.5}, "below 1"),
        ({"mask": -1}, "negative"),
        ({"stepz": 3}, "stepz"),
        ({"strength": 3}, "strength"),
        ({"steps": "many"}, "many"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        with_changes(changes)


def test_settings_come_as_text_too():
    assert with_changes({"steps": "7", "learning_rate": "1e-3"}) == PretrainConfig(
        steps=7, learning_rate=1e-3
    )
