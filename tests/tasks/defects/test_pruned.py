"""Detectors with fewer channels: which go first, and what they are repaired by."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from kernels.compression.pruning.channel_sets import ChannelSets
from kernels.compression.pruning.criteria import importance
from kernels.compression.pruning.propagate import channel_graph
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.edge.pruned import PruneConfig, _answers_moved, _Dense, _loss_against, _pieces


@pytest.fixture(scope="module")
def net():
    """A net whose batch norms have seen noise, and a head."""
    torch.manual_seed(0)
    made = _Dense(DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)))
    for _ in range(20):
        made(torch.rand(4, 3, 48, 48))
    return made.eval(), nn.Conv2d(8, 2, 1).requires_grad_(requires_grad=False)


def test_channels_are_scored_by_how_far_the_answers_move_without_them(net):
    whole, head = net
    batches = [torch.rand(4, 3, 48, 48) for _ in range(24)]
    sets = ChannelSets(whole, channel_graph(whole, (batches[0],)))
    scores = importance("taylor", whole, sets, batches=batches, loss=_answers_moved(head, 0))
    assert (scores > 0).all()
    against = _loss_against(copy.deepcopy(whole), head)
    moved = []
    for place in range(len(sets)):
        kept = np.ones(len(sets), dtype=bool)
        kept[place] = False
        left = copy.deepcopy(whole)
        sets.surgery(kept).apply(left)
        with torch.no_grad():
            moved.append(float(against(left, batches[0])[0]))
    assert stats.spearmanr(scores, moved).statistic > 0.6
    # What would be left is no score: against itself a net loses nothing.
    nothing = importance("taylor", whole, sets, batches=batches[:2], loss=against)
    assert not nothing.any()


def test_repair_sees_pieces_near_and_far():
    rng = np.random.default_rng(0)
    fine = np.indices((128, 128)).sum(0) % 2 * 100 + rng.integers(0, 20, (128, 128))
    draw = _pieces([fine.astype(np.uint8)], PruneConfig(share=0.3, piece=64, batch=16))
    spreads = draw(0).std(dim=(1, 2, 3))
    # A checkerboard of single pixels is even at half the size.
    far = spreads < 0.05
    assert 3 <= int(far.sum()) <= 13
    assert (spreads[~far] > 0.15).all()
    assert torch.equal(draw(5), draw(5))
