"""Accumulation: exact with ragged parts; out of memory the same step is done in smaller parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kernels.runtime.accumulation import (
    AccumulationConfig,
    StepTooLargeError,
    is_out_of_memory,
    split_batch,
)
from kernels.runtime.callbacks import History
from kernels.runtime.runner import Runner, run
from tests.kernels.runtime.small import batches, config, make_model, squared, weights


def masked(model, batch):
    """Rows without a label do not count: parts of equal size hold unequal numbers of items."""
    x, y = batch
    valid = x[:, 0] > 0.4
    return ((model(x) - y)[valid] ** 2).sum(), int(valid.sum())


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_parts_with_ragged_counts_equal_the_whole(parts):
    models = []
    for plan in (AccumulationConfig(), AccumulationConfig(parts=parts, max_parts=parts)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()

        def wide(index):
            return tuple(t.double() for t in batches(index))

        run(model, wide, masked, config(5, 0.01, accumulation=plan))
        models.append(weights(model))
    torch.testing.assert_close(*models, rtol=1e-12, atol=1e-14)


class Limited:
    """A loss that runs out of memory above some rows, after it has spoilt what it can."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.calls = 0

    def __call__(self, model, batch):
        value, count = squared(model, batch)
        self.calls += 1
        if count > self.rows:
            # As a backward pass that dies half-way: some gradients are there already.
            value.backward()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return value, count


def test_out_of_memory_the_same_step_is_done_in_smaller_parts(caplog):
    loss, history = Limited(5), History()
    plan = config(4, accumulation=AccumulationConfig(max_parts=8))
    found = make_model(norm=True)
    run(found, batches, loss, plan, [history])
    assert [m.items for m in history.steps] == [16] * 4
    assert "step 1 ran out of memory; again in 4 parts" in caplog.text
    assert loss.calls == 2 + 4 * 4, "the parts stay small"
    # As if the parts had been four from the beginning: buffers, gradients and dropout alike.
    expected = make_model(norm=True)
    parts = AccumulationConfig(parts=4, max_parts=4)
    run(expected, batches, squared, config(4, accumulation=parts))
    assert torch.equal(weights(found), weights(expected))
    for mine, other in zip(found.buffers(), expected.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_a_step_that_fits_in_no_parts_says_what_to_do():
    plan = config(4, accumulation=AccumulationConfig(max_parts=2))
    with pytest.raises(StepTooLargeError, match=r"in 2 parts.*raise accumulation.max_parts"):
        run(make_model(), batches, Limited(1), plan)
    with pytest.raises(torch.OutOfMemoryError):
        run(make_model(), batches, Limited(1), config(4))


def test_other_errors_are_not_taken_for_it():
    def broken(model, batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run(make_model(), batches, broken, config(2, accumulation=AccumulationConfig(max_parts=8)))
    with pytest.raises(RuntimeError) as huge:
        torch.empty(1 << 60)
    assert is_out_of_memory(huge.value)


class Pair(NamedTuple):
    a: torch.Tensor
    b: int


@dataclass(frozen=True)
class Item:
    x: torch.Tensor
    more: dict


@given(st.integers(1, 20), st.integers(1, 25))
def test_batches_of_any_make_are_cut_and_nothing_is_lost(rows, parts):
    x = torch.arange(rows)
    batch = (Pair(x, 3), [x * 2], Item(x * 3, {"y": x * 4, "scale": torch.tensor(2.0)}))
    found = split_batch(batch, parts)
    assert len(found) == min(rows, parts)
    assert torch.equal(torch.cat([p[0].a for p in found]), x)
    assert torch.equal(torch.cat([p[1][0] for p in found]), x * 2)
    assert torch.equal(torch.cat([p[2].x for p in found]), x * 3)
    assert torch.equal(torch.cat([p[2].more["y"] for p in found]), x * 4)
    assert {(p[0].b, float(p[2].more["scale"])) for p in found} == {(3, 2.0)}
    assert max(len(p[0].a) for p in found) - min(len(p[0].a) for p in found) <= 1


def test_what_cannot_be_cut_asks_for_a_function():
    plan = config(1, accumulation=AccumulationConfig(parts=2, max_parts=2))

    def uneven(index):
        x, y = batches(index)
        return x, y, torch.zeros(3)

    def loss(model, batch):
        return squared(model, batch[:2])

    with pytest.raises(ValueError, match=r"lengths \[3, 16\] cannot be cut"):
        run(make_model(), uneven, loss, plan)

    def split(batch, parts):
        x, y, rest = batch
        return [(a, b, rest) for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True)]

    history = History()
    Runner(make_model(), uneven, loss, plan, split=split, callbacks=[history]).run()
    assert history.steps[0].items == 16
