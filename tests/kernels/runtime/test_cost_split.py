"""Batches cut by cost: every sample once, the parts even, the run's result the same."""

from __future__ import annotations

import logging

import torch

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.cost_split import CostSplit
from kernels.runtime.runner import Runner
from tests.kernels.runtime.small import batches, config, weights


def costs(batch):
    return batch[0][:, 0].abs().numpy()


def test_every_sample_goes_to_one_part(caplog):
    split = CostSplit(costs)
    batch = (*batches(0), {"name": "same for all", "row": torch.arange(16)})
    with caplog.at_level(logging.INFO):
        parts = split(batch, 4)
    rows = torch.cat([part[2]["row"] for part in parts])
    assert rows.sort().values.tolist() == list(range(16))
    for x, y, named in parts:
        assert torch.equal(x, batch[0][named["row"]])
        assert torch.equal(y, batch[1][named["row"]])
        assert named["name"] == "same for all"
    assert split.after[0] > split.before[0]
    assert f"balance {split.after[0]:.3f}, by number {split.before[0]:.3f}" in caplog.text


def test_parts_without_samples_are_left_out():
    assert len(CostSplit(costs)(batches(0), 20)) == 16


def test_a_run_ends_at_the_same_weights():
    ends = []
    for split in (None, CostSplit(costs)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)).double()

        def source(index):
            return tuple(t.double() for t in batches(index))

        def loss(net, batch):
            x, y = batch
            return ((net(x) - y) ** 2).sum(), len(x)

        plan = config(5, accumulation=AccumulationConfig(parts=4, max_parts=4))
        Runner(model, source, loss, plan, split=split).run()
        ends.append(weights(model))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)
