"""Advice: each is provoked, and a model in order gets none."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from kernels.runtime import advice, finder
from kernels.runtime.advice import (
    data_advice,
    format_advice,
    layout_advice,
    loader_advice,
    odd_widths,
    padded_share,
    threads_advice,
)
from kernels.runtime.callbacks import StepMetrics
from kernels.runtime.finder import find
from kernels.runtime.memory_advice import (
    MemoryUse,
    available_bytes,
    explaining,
    memory_advice,
    memory_use,
)
from tests.kernels.runtime.small import batches, make_model, squared

MIB = 2**20


def steps(stalls, seconds=0.1):
    return [
        StepMetrics(i, len(stalls), 1.0, 0.1, 1.0, 10, 10 / (seconds + s), stall_seconds=s)
        for i, s in enumerate(stalls)
    ]


def square_loss(model, batch):
    return model(batch[0]).square().sum(), len(batch[0])


def test_nothing_is_said_where_all_is_well():
    found = find(make_model(), batches(0), loss=squared, steps=steps([0.001] * 10))
    assert [a for a in found if a.topic != "threads"] == []


def test_float64_is_found_in_parameters_and_batch():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1).double())
    x = {"x": torch.ones(8, 4, dtype=torch.float64), "y": torch.ones(8)}
    found = format_advice(model, x)
    assert [a.where for a in found] == ["1.weight, 1.bias", "batch ['x']"]
    assert "astype('float32')" in str(found[1])


def test_narrow_formats_are_questioned_on_a_cpu_without_matrix_units(monkeypatch):
    model = nn.Linear(4, 4).bfloat16()
    monkeypatch.setattr(advice, "has_matrix_units", lambda: False)
    (found,) = format_advice(model, torch.ones(8, 4))
    assert "no matrix units" in found.what
    assert "PrecisionConfig(compute='auto')" in found.fix
    monkeypatch.setattr(advice, "has_matrix_units", lambda: True)
    assert format_advice(model, torch.ones(8, 4)) == []


def test_layout_and_widths_matter_to_matrix_units(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(50, 33), nn.Linear(33, 3))
    monkeypatch.setattr(advice, "has_matrix_units", lambda: False)
    assert layout_advice(model, torch.ones(8, 3, 4, 4)) == []
    monkeypatch.setattr(advice, "has_matrix_units", lambda: True)
    first, widths = layout_advice(model, torch.ones(8, 3, 4, 4))
    assert first.where == "0"
    assert "channels_last" in first.fix
    assert widths.where == "2 50, 3 33"
    model.to(memory_format=torch.channels_last)
    images = torch.ones(8, 3, 4, 4).to(memory_format=torch.channels_last)
    assert layout_advice(model, images) == [widths]
    assert odd_widths(nn.Embedding(50_257, 64)) == {"": 50_257}


def test_a_batch_in_strides_is_found():
    (found,) = layout_advice(nn.Linear(4, 4), (torch.ones(4, 8).t(), torch.ones(8)))
    assert (found.topic, found.where) == ("layout", "batch [0]")


def test_padding_and_small_batch_norms_are_found():
    tokens = torch.zeros(4, 10, dtype=torch.long)
    tokens[:, :4] = 1
    tokens[0] = torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 0, 1])  # zeros inside are no padding
    assert padded_share(tokens) == pytest.approx(18 / 40)
    model = nn.Sequential(nn.Embedding(16, 8), nn.BatchNorm1d(10))
    padded, norm = data_advice(model, (tokens,))
    assert "45% of it are zeros at the ends" in padded.what
    assert norm.where == "1"
    assert "4 rows" in norm.what


def test_a_slow_loader_is_told_by_how_it_stalls():
    steady = loader_advice(steps([0.25] * 30))
    assert "waited for batches 71% of their time, 250.0 ms in every step" in steady.what
    assert "threads=3" in steady.fix
    bursts = loader_advice(steps([0.0] * 29 + [2.0]))
    assert "100% of it in a tenth of the steps" in bursts.what
    assert loader_advice(steps([0.001] * 30)) is None
    assert loader_advice([]) is None


def test_too_many_threads_are_found(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 512)
    assert "512 threads" in threads_advice().what


def test_bytes_of_a_step_are_counted():
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    x = torch.ones(1000, 64)
    state = torch.get_rng_state()
    use = memory_use(model, square_loss, (x,))
    assert torch.equal(torch.get_rng_state(), state)
    weights = 4 * 65 * 64
    assert (use.weights, use.gradients, use.optimizer) == (weights, weights, 2 * weights)
    assert use.batch == 4 * 1000 * 64
    # The input, which is the batch, and the result of tanh.
    assert use.activations == pytest.approx(2 * 4 * 1000 * 64, rel=0.01)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    square_loss(model, (x,))[0].backward()
    optimizer.step()
    assert memory_use(model, square_loss, (x,), optimizer).optimizer == weights


def test_advice_depends_on_what_holds_the_memory():
    heavy = MemoryUse(10 * MIB, 10 * MIB, 20 * MIB, MIB, 400 * MIB)
    found = memory_advice(heavy, 200 * MIB)
    assert "AccumulationConfig(parts=4, max_parts=16)" in found.fix
    assert "MemoryConfig(budget_mib=139)" in found.fix
    near = memory_advice(heavy, 441 * MIB + 30 * MIB)
    assert "max_parts=" in near.fix
    assert memory_advice(heavy, 2000 * MIB) is None
    full = memory_advice(MemoryUse(100 * MIB, 100 * MIB, 200 * MIB, MIB, MIB), 200 * MIB)
    assert full.where == "optimizer"
    assert "ParametersConfig(dtype='bf16'" in full.fix


def test_what_a_step_holds_already_needs_no_room_again(monkeypatch):
    """Of a machine on which there is room for a batch and little more."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    batch = (torch.ones(8, 64),)
    optimizer = torch.optim.AdamW(model.parameters())
    use = memory_use(model, square_loss, batch)
    room = use.batch + use.activations + use.total // 4
    monkeypatch.setattr(finder, "available_bytes", lambda device: room)

    def said():
        advised = find(model, batch, loss=square_loss, optimizer=optimizer)
        return [a for a in advised if a.topic == "memory"]

    (before,) = said()  # gradients and moments are still to come
    assert "does not fit" in before.what
    square_loss(model, batch)[0].backward()
    assert len(said()) == 1  # the moments still are
    optimizer.step()
    assert said() == []
    optimizer.zero_grad()
    assert len(said()) == 1


def test_running_out_of_memory_says_what_held_it():
    """A real failure of the allocator, under a limit of this process's address space."""
    model = nn.Sequential(nn.Linear(8, 4096), nn.Tanh(), nn.Linear(4096, 1))
    x = torch.ones(32_768, 8)  # 512 MiB after the first layer, 512 after tanh
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    taken = pages * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (taken + 400 * MIB, hard))
        assert available_bytes(torch.device("cpu")) <= 400 * MIB
        with (
            pytest.raises(RuntimeError, match="allocate memory") as caught,
            explaining(model, square_loss, lambda: (x,)),
        ):
            square_loss(model, (x,))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    (note,) = caught.value.__notes__
    assert "activations 513" in note
    assert "AccumulationConfig(parts=2" in note


def test_other_errors_are_left_alone():
    with pytest.raises(KeyError) as caught, explaining(make_model(), squared, lambda: None):
        raise KeyError("x")
    assert not hasattr(caught.value, "__notes__")
