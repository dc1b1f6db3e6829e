"""The temporal sampler: never the future, never too many, only edges there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ops.graph import TemporalSampler
from kernels.ops.graph import sampler as module


def history(seed: int, nodes: int, edges: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, nodes, (2, edges))
    return ends[0], ends[1], rng.integers(0, 20, edges)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), nodes=st.integers(1, 8), edges=st.integers(0, 200),
    fan_outs=st.lists(st.integers(1, 4), min_size=1, max_size=3), last=st.booleans(),
    n_roots=st.integers(0, 24),
)  # fmt: skip
def test_invariants(seed, nodes, edges, fan_outs, last, n_roots):
    source, target, time = history(seed, nodes, edges)
    rng = np.random.default_rng(seed + 1)
    roots, before = rng.integers(0, nodes, n_roots), rng.integers(-1, 22, n_roots)
    sampler = TemporalSampler(source, target, time, nodes, fan_outs, last=last)
    found = sampler.sample(roots, before, seed=seed)
    assert all(getattr(found, name).dtype == np.int32 for name in found.__slots__)
    assert len(found.node_ptr) == len(found.edge_ptr) == n_roots + 1
    # Edges exist in the graph, and their ends are the nodes named.
    assert np.array_equal(found.node[found.source], source[found.edge])
    assert np.array_equal(found.node[found.target], target[found.edge])
    for r in range(n_roots):
        mine = found.node[found.node_ptr[r] : found.node_ptr[r + 1]]
        assert mine[0] == roots[r]
        assert len(set(mine)) == len(mine)
        part = slice(found.edge_ptr[r], found.edge_ptr[r + 1])
        assert (time[found.edge[part]] < before[r]).all()
        inside = (found.source[part] >= found.node_ptr[r]) & (
            found.source[part] < found.node_ptr[r + 1]
        )
        assert inside.all()
        past = np.flatnonzero(time < before[r])
        reached, seen = [int(roots[r])], {int(roots[r])}
        position = found.edge_ptr[r]
        for fan_out in fan_outs:
            fresh = []
            for node in reached:
                whole = past[target[past] == node]
                count = min(fan_out, len(whole))
                taken = found.edge[position : position + count]
                position += count
                assert set(taken) <= set(whole)
                assert len(set(taken)) == count
                if last:
                    order = np.lexsort((whole, time[whole]))
                    assert taken.tolist() == whole[order][::-1][:count].tolist()
                for other in source[taken].tolist():
                    if other not in seen:
                        seen.add(other)
                        fresh.append(other)
            reached = fresh
        assert position == found.edge_ptr[r + 1]
        assert seen == set(mine.tolist())


def test_any_number_of_threads_gives_the_same_sample():
    source, target, time = history(3, 500, 20_000)
    sampler = TemporalSampler(source, target, time, 500, [10, 10, 5])
    roots, before = np.arange(400), np.full(400, 15)
    threads, samples = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            samples.append(sampler.sample(roots, before, seed=9))
    finally:
        torch.set_num_threads(threads)
    for name in samples[0].__slots__:
        assert all(np.array_equal(getattr(samples[0], name), getattr(s, name)) for s in samples)
    other = sampler.sample(roots, before, seed=10)
    assert not np.array_equal(other.edge[:50], samples[0].edge[:50])
    # A root's draws depend on its position, not on who stands after it.
    fewer = sampler.sample(roots[:100], before[:100], seed=9)
    assert np.array_equal(fewer.node, samples[0].node[: len(fewer.node)])


def test_draws_are_uniform():
    sampler = TemporalSampler(np.arange(8), np.zeros(8, int), np.zeros(8), 8, [3])
    draws = sampler.sample(np.zeros(20_000, int), np.ones(20_000, int), seed=1).edge
    counts = np.bincount(draws, minlength=8)
    assert np.abs(counts / 7_500 - 1).max() < 0.05


def test_wrong_input_is_refused(monkeypatch):
    source, target, time = history(4, 5, 20)
    with pytest.raises(ValueError, match=r"must be \[edges\] alike"):
        TemporalSampler(source, target[:3], time, 5, [2])
    with pytest.raises(ValueError, match=r"source must lie in 0\.\.3"):
        TemporalSampler(np.full(20, 4), np.zeros(20, int), time, 4, [2])
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3"):
        TemporalSampler(np.zeros(20, int), np.full(20, -1), time, 4, [2])
    for wrong in ([], [2, 0]):
        with pytest.raises(ValueError, match="at least 1 edge per hop"):
            TemporalSampler(source, target, time, 5, wrong)
    with pytest.raises(ValueError, match="split the graph"):
        TemporalSampler(source, target, time, 2**31, [2])
    sampler = TemporalSampler(source, target, time, 5, [2])
    with pytest.raises(ValueError, match=r"must be \[roots\] alike"):
        sampler.sample([1, 2], [3])
    with pytest.raises(ValueError, match=r"roots must lie in 0\.\.4, got 1\.\.5"):
        sampler.sample([1, 5], [3, 3])
    with pytest.raises(ValueError, match="seed must be at least 0"):
        sampler.sample([1], [3], seed=-1)
    monkeypatch.setattr(module, "INT32_MAX", 5)
    with pytest.raises(ValueError, match="take fewer"):
        sampler.sample([1, 2], [3, 3])


def test_a_root_of_any_later_time_sees_all_edges_also_of_times_before_zero():
    for when in ([-5, -4], [0, 1]):
        sampler = TemporalSampler([1, 2], [0, 0], when, 3, [5])
        for before in (2, np.iinfo(np.int64).max):
            assert len(sampler.sample([0], [before]).edge) == 2
    with pytest.raises(ValueError, match="more than 64 bits"):
        TemporalSampler([1, 2], [0, 0], [-(2**62) - 1, 2**62], 3, [5])
