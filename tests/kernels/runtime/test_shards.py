"""Shards and prefetching: every row once an epoch, in an order that only seed and epoch decide."""

from __future__ import annotations

import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.runtime.callbacks import History
from kernels.runtime.prefetch import prefetched
from kernels.runtime.runner import run
from kernels.runtime.shards import ShardedBatches, ShardError, ShardsConfig, to_tensors
from tests.kernels.runtime.small import Stop, config, make_model, squared, weights


def write(folder, sizes):
    paths, start = [], 0
    for n, size in enumerate(sizes):
        ids = np.arange(start, start + size)
        x = np.random.default_rng(n).normal(size=(size, 4)).astype(np.float32)
        table = pa.table({"id": ids, "x": pa.array(list(x), pa.list_(pa.float32())), "y": x.sum(1)})
        paths.append(folder / f"{n}.parquet")
        pq.write_table(table, paths[-1])
        start += size
    return paths


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda s: sum(s) > 0),
    st.integers(1, 12),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_every_row_comes_once_an_epoch(tmp_path_factory, sizes, rows, mixed, shuffle, drop_last):
    paths = write(tmp_path_factory.mktemp("shards"), sizes)
    plan = ShardsConfig(rows=rows, mixed=mixed, shuffle=shuffle, drop_last=drop_last)
    if drop_last and sum(sizes) < rows:
        with pytest.raises(ShardError, match="fewer than one batch"):
            ShardedBatches(paths, plan)
        return
    source = ShardedBatches(paths, plan)
    for epoch in range(2):
        indices = range(epoch * source.per_epoch, (epoch + 1) * source.per_epoch)
        ids = [source(i)["id"].tolist() for i in indices]
        flat = [i for batch in ids for i in batch]
        assert len(flat) == len(set(flat))
        assert all(len(batch) == rows for batch in ids[: len(ids) if drop_last else -1])
        if not drop_last:
            assert sorted(flat) == list(range(sum(sizes)))
        if not shuffle:
            assert flat == sorted(flat)


def test_any_batch_can_be_asked_for_at_any_time(tmp_path):
    paths = write(tmp_path, [40, 33, 27, 50])
    plan = ShardsConfig(rows=16, mixed=2, seed=3)
    source = ShardedBatches(paths, plan)
    order = [source(i)["id"] for i in range(2 * source.per_epoch)]
    for i in (5, 17, 0, 8, 1):
        assert torch.equal(ShardedBatches(paths, plan)(i)["id"], order[i])
        assert torch.equal(source(i)["id"], order[i])
    other = ShardedBatches(paths, ShardsConfig(rows=16, mixed=2, seed=4))
    assert not torch.equal(other(0)["id"], order[0])
    assert not torch.equal(order[0], order[source.per_epoch])


def test_a_run_over_shards_goes_on_bit_for_bit(tmp_path):
    paths = write(tmp_path, [64, 64, 64])

    def pairs(table):
        found = to_tensors(table)
        return found["x"], found["y"].unsqueeze(1)

    def source():
        return ShardedBatches(paths, ShardsConfig(rows=16, columns=("x", "y")), pairs)

    plan, whole, again = config(20, every=4), make_model(), make_model()
    with prefetched(source(), ahead=3) as ready:
        run(whole, ready, squared, plan)
    with pytest.raises(KeyboardInterrupt):
        run(make_model(), source(), squared, plan, [Stop(9)], tmp_path / "run")
    with prefetched(source(), ahead=2, threads=2) as ready:
        assert run(again, ready, squared, plan, folder=tmp_path / "run").steps == 12
    assert torch.equal(weights(whole), weights(again))


def test_prefetching_hides_the_time_batches_take(tmp_path):
    def slow(index):
        time.sleep(0.03)
        return torch.full((8, 4), float(index)), torch.zeros(8, 1)

    def busy(model, batch):
        time.sleep(0.04)
        return squared(model, batch)

    waited = []
    for ahead in (0, 2):
        history = History()
        if ahead:
            with prefetched(slow, ahead=ahead) as ready:
                run(make_model(), ready, busy, config(8), [history])
        else:
            run(make_model(), slow, busy, config(8), [history])
        waited.append(sum(m.stall_seconds for m in history.steps[1:]))
    assert waited[1] < 0.4 * waited[0]


def test_an_error_shows_at_its_batch_and_threads_end():
    def broken(index):
        if index == 3:
            raise OSError("torn")
        return torch.zeros(2, 4), torch.zeros(2, 1)

    history, before = History(), threading.active_count()
    with prefetched(broken) as ready, pytest.raises(OSError, match="torn") as found:
        run(make_model(), ready, squared, config(9), [history])
    assert found.value.__notes__ == ["while batch 3 was read for step 4"]
    assert len(history.steps) == 3
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="at least 1"), prefetched(broken, ahead=0):
        pass


def test_what_is_no_shard_is_named(tmp_path):
    paths = write(tmp_path, [5])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ShardError, match=r"torn\.parquet cannot be read"):
        ShardedBatches([*paths, tmp_path / "torn.parquet"], ShardsConfig(rows=2))
    with pytest.raises(ShardError, match=r"lacks the columns z"):
        ShardedBatches(paths, ShardsConfig(rows=2, columns=("x", "z")))
    with pytest.raises(ValueError, match="at least 1"):
        ShardsConfig(rows=0)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array(["a", "b"]), "is no numbers; give a decode function"),
        (pa.array([1.0, None]), "lacks 1 values"),
        (pa.array([[1.0], [1.0, 2.0, 3.0]]), "differ in length"),
    ],
)
def test_columns_that_are_no_tensors_ask_for_a_function(column, told):
    with pytest.raises(ShardError, match=told):
        to_tensors(pa.table({"c": column}))
