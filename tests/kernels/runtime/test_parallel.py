"""Every layout trains as one process does, goes on in every other, and is refused by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.clipping import ClippingConfig
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.compilation import CompileConfig
from kernels.runtime.compression import CompressionConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.parallel import ParallelConfig
from kernels.runtime.precision import PrecisionConfig
from tests.kernels.runtime import parallel_run as runs

PROGRAM = Path(runs.__file__)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    command = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def alone():
    return runs.trained(ParallelConfig())


def difference(one: dict, other: dict) -> float:
    pair = [torch.tensor(each["weights"], dtype=torch.float64) for each in (one, other)]
    return float((pair[0] - pair[1]).abs().max())


@pytest.mark.long
@pytest.mark.parametrize("name", runs.LAYOUTS)
def test_a_layout_ends_at_the_weights_of_one_process(found, alone, name):
    """With ragged numbers of items and a clipped norm; in every process's model."""
    one = found["layouts"][name]
    assert difference(one, alone) <= 1e-12
    assert one["apart"] == 0.0
    assert one["own memory"]  # libraries refuse to save parts of a larger one
    assert one["best"] == pytest.approx(alone["best"], rel=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["full", "selective"])
def test_spread_blocks_can_be_computed_again(found, kind):
    once, again = found["recomputed"]["none"], found["recomputed"][kind]
    assert again["calls"] == 2 * once["calls"] > 0
    assert again["weights"] == once["weights"]


@pytest.mark.long
def test_an_optimizer_of_ones_own_trains_spread_tensors(found):
    alone = runs.trained(ParallelConfig(), build_optimizer=runs.own_optimizer)
    for one in found["own optimizer"].values():
        assert difference(one, alone) <= 1e-12


@pytest.mark.long
def test_copies_of_the_weights_are_the_first_ones(found):
    """The other processes began with other weights, which copies in fp32 must not keep."""
    assert found["bf16"]["apart"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("name", runs.CONTEXTS)
def test_cut_sequences_end_at_the_weights_of_one_process(found, name):
    """Causal attention, tokens that do not count."""
    one = found["context"][name]
    assert difference(one, runs.attentive(ParallelConfig())) <= 1e-12
    assert one["apart"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), runs.RESUMED)
def test_a_run_goes_on_in_another_layout(found, alone, before, after):
    """Model, moments and other parts are loaded as they were saved, bit for bit."""
    one = found["resumed"][f"{before} -> {after}"]
    assert one["equal"]
    assert difference(one, alone) <= 1e-12


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("too early", "after the model was cast or sharded"),
        ("sizes", "shard 3 is for 3 processes, there are 4; start 3, or change the sizes"),
        ("nan in shard", "step 3: loss nan"),
        ("nan in pipeline", "step 3: loss nan"),
        ("small batch", "only 7 of 8 parts; .* give larger batches"),
        ("uneven", r"\(1, 6\).*\(2, 6\).* can be divided by 16"),
        ("no sequence", "cuts an nn.Sequential, the model is a Wrapped"),
        ("no attention", "parallel.context: the model computed no attention by torch.nn"),
        ("odd sequence", r"sequences of 6 tokens \(dimension 1\) into 4; pad them"),
        ("hidden attention", "nn.MultiheadAttention hides its attention"),
        ("no layer", "'nothing', which is no linear layer of the model; it has 0, 2, 4"),
        ("odd", "cuts '2' by column, 10 wide, into 4"),
        ("no block", "parallel.blocks names nothing"),
        ("no child", "give names of the model's children in their order, but for the first: 1, 2"),
        ("no weights", r"stage 2 of parallel.cuts \(1\) has nothing to train"),
    ],
)
def test_what_cannot_run_is_refused_by_all_processes_alike(found, case, told):
    """Their given models are whole again then."""
    assert re.search(told, found["refused"][case]), found["refused"][case]


@pytest.mark.long
def test_running_statistics_are_those_of_all_processes(found):
    """Means of equal shares are the mean of all; variances are the mean within the shares."""
    one, whole = found["statistics"], runs.statistics()
    assert one["apart"] == 0.0
    assert one["mean"] == pytest.approx(whole["mean"], rel=1e-9)
    wanted = torch.ones(6, dtype=torch.float64)
    for step in range(3):
        shares = runs.source(step)[0].reshape(4, 8, 6)
        wanted = 0.9 * wanted + 0.1 * shares.var(dim=1).mean(dim=0)
    assert one["var"] == pytest.approx(wanted.tolist(), rel=1e-9)


@pytest.mark.long
def test_processes_choose_formats_alike(found):
    """Values out of range in one share move the layer in all processes."""
    every = found["formats"]["every"]
    assert all(one == every[0] for one in every)
    assert every[0] == {"0": "bf16", "2": "fp16"}


@pytest.mark.long
@pytest.mark.parametrize("method", ["none", "powersgd", "topk", "late"])
def test_what_compression_leaves_out_is_not_lost(found, method):
    """Sent and unsent add up to all gradients; a step that is not finite leaves no trace."""
    one = found["compressed"][method]
    assert one["missing"] <= 1e-12
    assert one["apart"] == 0.0
    assert one["restored"]
    assert one["kept"]
    assert one["infinite"]


@pytest.mark.long
def test_what_compression_leaves_out_is_not_lost_beside_cut_sequences(found):
    """The sums over the parts of a sequence are sent whole, and leave nothing."""
    one = found["compressed beside context"]
    assert one["missing"] <= 1e-12
    assert one["behind"] > 1
    assert one["steps"] == 3
    assert one["apart"] == 0.0


@pytest.mark.long
def test_summed_gradients_keep_the_layout_of_their_parameters(found):
    every = found["strides"]
    assert len(every) == 2
    assert all(one == {"kept": True, "right": True} for one in every.values())


@pytest.mark.long
def test_compression_is_as_exact_as_its_message(found):
    behind = {method: each["behind"] for method, each in found["compressed"].items()}
    assert max(behind["powersgd"][:2]) <= 1e-12  # the sum has the rank that is sent
    assert min(behind["powersgd"][2:]) > 1
    assert min(behind["topk"]) > 1
    assert max(behind["bf16"]) < 0.2  # sums of four are rounded between the processes, too
    assert found["compressed"]["bf16"]["missing"] < 0.2


@pytest.mark.long
def test_bytes_are_those_of_values_and_places(found):
    """Seven steps, and one that is not finite and goes whole, of a matrix and a vector."""
    sent = {method: each["bytes"] for method, each in found["compressed"].items()}
    matrix, vector, ring = 24 * 40, 24, 2 * 3 / 4
    whole = (matrix + vector) * 8 * ring
    assert sent["none"] == sent["late"] == 8 * whole
    assert sent["bf16"] == 7 * (matrix + vector) * 2 * ring + whole
    assert sent["powersgd"] == 7 * (2 * (24 + 40) + vector) * 8 * ring + whole
    # A tenth of the values, and a bit for every place, which is less than numbers of two bytes.
    assert sent["topk"] == 7 * (3 * (matrix // 10 * 2 + matrix // 8) + vector * 8 * ring) + whole


@pytest.mark.long
def test_a_compressed_run_goes_on_bit_for_bit(found):
    one = found["resumed compressed"]
    assert one["half"] == one["whole"]
    assert one["other"] != one["whole"]
    assert "the errors begin anew" in one["told"][0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"shard": 0}, "parallel.shard must be at least 1"),
        ({"data": -1}, "parallel.data is -1"),
        ({"offload": True}, "need parallel.shard above 1"),
        ({"tensor": 2}, "tensor above 1 and plan together"),
        ({"tensor": 2, "plan": {"0": "diagonal"}}, "take 'column', 'row' or 'gathered'"),
        ({"pipeline": 2, "cuts": ("1",), "schedule": "2f2b"}, "take '1f1b' or 'interleaved'"),
        ({"cuts": ("1",)}, "cuts need parallel.pipeline"),
        ({"pipeline": 3, "cuts": ("1",)}, "make 2 stages of 3 processes; .* needs 2 cuts"),
        ({"pipeline": 2, "cuts": ("1",), "schedule": "interleaved"}, "a multiple of 2"),
        ({"pipeline": 2, "cuts": ("1",), "micro_batches": 1}, "needs at least 2"),
        (
            {
                "pipeline": 2,
                "cuts": ("1", "2", "3"),
                "schedule": "interleaved",
                "micro_batches": 3,
            },
            "needs a multiple of 2",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        ParallelConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"precision": PrecisionConfig(compute="adaptive")}, "precision.compute='adaptive'; take"),
        ({"precision": PrecisionConfig(compute="fp16")}, "precision.compute='fp16'; take"),
        ({"parameters": ParametersConfig(dtype="bf16")}, "parameters.dtype='bf16'"),
        ({"parameters": ParametersConfig(optimizer_on="cpu")}, "parameters.optimizer_on='cpu'; ta"),
        ({"memory": MemoryConfig(packing="lossless")}, "memory.packing"),
        ({"memory": MemoryConfig(budget_mib=1.0)}, "memory.packing, to_cpu, budget_mib"),
        ({"compilation": CompileConfig(mode="export")}, "compilation.mode='export'; take 'eager'"),
        ({"accumulation": AccumulationConfig(max_parts=2)}, "accumulation.max_parts above parts"),
        ({"clipping": ClippingConfig(kind="agc")}, "clipping.kind='agc'"),
    ],
)
def test_parts_that_do_not_go_with_a_spread_model_are_refused(settings, told):
    with pytest.raises(ValueError, match=f"does not go with {told}"):
        RunConfig(steps=1, parallel=ParallelConfig(shard=2), **settings)
    RunConfig(steps=1, **settings)


@pytest.mark.parametrize(
    "layout",
    [ParallelConfig(context=2), ParallelConfig(pipeline=2, cuts=("1",))],
    ids=["context", "pipeline"],
)
def test_nothing_is_computed_again_where_that_would_go_wrong(layout):
    with pytest.raises(ValueError, match=r"memory.recompute beside parallel.pipeline or context"):
        RunConfig(steps=1, parallel=layout, memory=MemoryConfig(recompute="full"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "zip"}, "take 'none', 'bf16', 'powersgd' or 'topk'"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"share": 0.0}, r"lie in \(0, 1\]"),
    ],
)
def test_compression_is_validated(settings, told):
    with pytest.raises(ValueError, match=told):
        CompressionConfig(**settings)


def test_a_layout_knows_who_speaks_and_who_draws_alike():
    plan = {"0": "row"}
    config = ParallelConfig(data=2, tensor=2, plan=plan, pipeline=2, cuts=("1",))
    every = [config.layout(rank, 8) for rank in range(8)]
    assert [one.at("pipeline") for one in every] == [0] * 4 + [1] * 4
    assert [one.at("data", "shard") for one in every] == [0, 0, 1, 1] * 2
    assert [one.counts for one in every] == [False] * 4 + [True, False] * 2
    assert [one.leads for one in every] == [True, False, False, False] * 2
    assert [one.stream for one in every] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert ParallelConfig().layout(3, 5).sizes == (1, 5, 1, 1, 1)


def test_how_a_run_is_spread_does_not_make_it_another_one():
    plain, spread = RunConfig(steps=1), RunConfig(steps=1, parallel=ParallelConfig(shard=2))
    assert plain.identity() == spread.identity()
    compression = CompressionConfig(method="bf16")
    packed = RunConfig(steps=1, parallel=ParallelConfig(compression=compression))
    assert packed.identity() != plain.identity()
