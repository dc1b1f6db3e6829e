"""Requests share a batch when they may, wait no longer than told, and are turned away in time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from connectors.api.problem import Problem
from connectors.model_server.batching import BatchConfig, Batcher, BatchEvents, Slots
from connectors.model_server.onnx_model import OnnxModel, RunError
from connectors.model_server.rows import ROWS, examples, rows_are_independent
from tests.onnx_files import centred, looked_up, same, scaled
from tests.onnx_files import model as onnx_file


class Gate:
    """A model behind a gate, so that a test says when a run ends."""

    def __init__(self, content):
        self.model, self.open, self.sizes = OnnxModel(content, "m"), threading.Event(), []

    def run(self, feeds, outputs=()):
        self.sizes.append({name: value.shape for name, value in feeds.items()})
        assert self.open.wait(10)
        return self.model.run(feeds, outputs)


class Stand:
    """A batcher and what it told."""

    def __init__(self, model, *, together=True, slots=None, **config):
        self.ran, self.waited = [], []
        self.executor = ThreadPoolExecutor(4)
        events = BatchEvents(lambda *told: self.ran.append(told), self.waited.append)
        self.batcher = Batcher(
            model,
            BatchConfig(**config),
            slots or Slots(4),
            self.executor,
            events,
            together=together,
        )

    def ask(self, value=1.0, rows=1, width=4, outputs=()):
        x = np.full((rows, width), value, np.float32)
        return asyncio.ensure_future(self.batcher.run({"x": x}, outputs))


async def until(condition):
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def row(answer):
    return answer["y"][:, 0].tolist()


def test_what_gathers_while_the_model_is_busy_is_one_batch():
    async def run():
        gate = Gate(scaled(2.0))
        stand = Stand(gate, max_rows=8, max_wait_ms=0)
        first = stand.ask(1)
        await until(lambda: gate.sizes)
        others = [stand.ask(i, rows=1 + i % 2) for i in range(2, 7)]
        await until(lambda: stand.batcher.depth == 5)
        assert stand.batcher.running == 1
        gate.open.set()
        assert row(await first) == [2.0]
        for i, other in zip(range(2, 7), others, strict=True):
            assert row(await other) == [2.0 * i] * (1 + i % 2)
        assert [told[:2] for told in stand.ran] == [(1, 1), (5, 7)]
        assert stand.batcher.idle
        assert len(stand.waited) == 6

    asyncio.run(run())


def test_batches_keep_to_their_size_and_large_requests_go_alone():
    async def run():
        stand = Stand(OnnxModel(scaled(2.0), "m"), max_rows=4, max_wait_ms=5)
        answers = await asyncio.gather(*(stand.ask(i, rows=n) for i, n in enumerate([3, 3, 9, 1])))
        assert [len(row(answer)) for answer in answers] == [3, 3, 9, 1]
        assert sorted(rows for _, rows, _ in stand.ran) == [1, 3, 3, 9]

    asyncio.run(run())


def test_an_idle_model_waits_for_others_no_longer_than_told():
    async def run():
        stand = Stand(OnnxModel(scaled(2.0), "m"), max_rows=2, max_wait_ms=300)
        await asyncio.gather(stand.ask(), stand.ask())
        began = time.perf_counter()
        await stand.ask()
        assert time.perf_counter() - began >= 0.299
        assert [told[:2] for told in stand.ran] == [(2, 2), (1, 1)]

    asyncio.run(run())


def test_a_late_comer_that_fills_the_batch_ends_the_wait():
    async def run():
        stand = Stand(OnnxModel(scaled(2.0), "m"), max_rows=2, max_wait_ms=20_000)
        first = stand.ask()
        await asyncio.sleep(0.02)
        assert not first.done()
        await asyncio.wait_for(asyncio.gather(first, stand.ask()), 10)
        assert [told[:2] for told in stand.ran] == [(2, 2)]

    asyncio.run(run())


def test_other_shapes_and_other_outputs_are_never_mixed():
    async def run():
        gate = Gate(scaled(2.0, width="side"))
        stand = Stand(gate, max_rows=32, max_wait_ms=20)
        gate.open.set()
        asked = [stand.ask(i, width=2 + i % 3, outputs=("y",) if i % 2 else ()) for i in range(12)]
        for i, answer in enumerate(await asyncio.gather(*asked)):
            assert answer["y"].shape == (1, 2 + i % 3)
            assert row(answer) == [2.0 * i]
        assert sorted(sizes["x"] for sizes in gate.sizes) == [
            (2, 2),
            (2, 2),
            (2, 3),
            (2, 3),
            (2, 4),
            (2, 4),
        ]

    asyncio.run(run())


def test_a_request_that_cannot_be_run_harms_no_other():
    async def run():
        stand = Stand(OnnxModel(looked_up(), "m"), max_rows=8, max_wait_ms=20)
        asked = [
            asyncio.ensure_future(stand.batcher.run({"i": np.array([i], np.int64)}))
            for i in (0, 99, 4)
        ]
        first, bad, last = await asyncio.gather(*asked, return_exceptions=True)
        np.testing.assert_array_equal(first["y"], [[0, 1]])
        np.testing.assert_array_equal(last["y"], [[8, 9]])
        assert isinstance(bad, RunError)

    asyncio.run(run())


def test_a_full_queue_and_a_long_wait_turn_away():
    async def run():
        gate = Gate(scaled(2.0))
        stand = Stand(gate, max_rows=1, max_queue=2, queue_ms=100)
        asked = [stand.ask(0)]
        await until(lambda: gate.sizes)
        asked += [stand.ask(i) for i in (1, 2)]
        await until(lambda: stand.batcher.depth == 2)
        with pytest.raises(Problem) as refused:
            await stand.ask()
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"] == "1"
        await asyncio.sleep(0.2)
        gate.open.set()
        first, *late = await asyncio.gather(*asked, return_exceptions=True)
        assert row(first) == [0.0]
        assert [problem.status for problem in late] == [503, 503]
        assert row(await stand.ask(4)) == [8.0]

    asyncio.run(run())


def test_who_goes_away_is_not_run():
    async def run():
        gate = Gate(scaled(2.0))
        stand = Stand(gate, max_rows=1)
        first = stand.ask()
        await until(lambda: gate.sizes)
        gone, last = stand.ask(), stand.ask(5)
        await until(lambda: stand.batcher.depth == 2)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert row(await last) == [10.0]
        await first
        assert len(gate.sizes) == 2
        assert stand.batcher.idle

    asyncio.run(run())


def test_slots_bound_all_models_together():
    async def run():
        slots, gates = Slots(1), [Gate(scaled(2.0)), Gate(scaled(3.0))]
        stands = [Stand(gate, slots=slots) for gate in gates]
        asked = [stand.ask(1) for stand in stands]
        # Which of them is first is the machine's choice.
        await until(lambda: any(gate.sizes for gate in gates))
        first = 0 if gates[0].sizes else 1
        second = 1 - first
        await until(lambda: stands[second].batcher.depth)
        assert len(gates[first].sizes) == 1
        assert not gates[second].sizes
        gates[first].open.set()
        assert row(await asked[first]) == [2.0 + first]
        await until(lambda: gates[second].sizes)
        gates[second].open.set()
        assert row(await asked[second]) == [2.0 + second]

    asyncio.run(run())


def test_runs_of_one_model_go_side_by_side_when_allowed():
    async def run():
        gate = Gate(scaled(2.0))
        stand = Stand(gate, runs=2, max_rows=1)
        asked = [stand.ask(i) for i in range(3)]
        await until(lambda: len(gate.sizes) == 2)
        assert (stand.batcher.running, stand.batcher.depth) == (2, 1)
        gate.open.set()
        assert [row(answer) for answer in await asyncio.gather(*asked)] == [[0.0], [2.0], [4.0]]

    asyncio.run(run())


def dynamically_quantised() -> bytes:
    """y = x as bytes of one scale for the whole batch, and back."""
    from onnx import helper

    return onnx_file(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        [("x", "FP32", ["rows", 4])],
        [("y", "FP32", ["rows", 4])],
    )


@pytest.mark.parametrize(
    ("content", "independent"),
    [
        (scaled(2.0), True),
        (scaled(2.0, width="side"), True),
        (same("BYTES"), True),
        (looked_up(), True),
        (centred(), False),
        (dynamically_quantised(), False),
    ],
    ids=["scaled", "free side", "text", "looked up", "centred", "dynamic int8"],
)
def test_rows_that_know_of_each_other_are_found_out(content, independent):
    opened = OnnxModel(content, "m")
    feeds = examples(opened, ROWS)
    assert opened.free_rows
    assert rows_are_independent(opened, feeds) is independent


def test_a_fixed_first_dimension_is_no_batch():
    assert not OnnxModel(scaled(2.0, rows=2), "m").free_rows


@pytest.mark.parametrize(
    "changes", [{"max_rows": 0}, {"max_wait_ms": -1}, {"max_queue": 0}, {"queue_ms": 0}]
)
def test_bounds_that_cannot_work_are_refused(changes):
    with pytest.raises(ValueError, match="batches"):
        BatchConfig(**changes)
