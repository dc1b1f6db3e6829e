"""Activations: counted, recomputed, packed, within a budget; exact plans are exact to the bit."""

from __future__ import annotations

import gc
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.runtime.memory import Memory, MemoryConfig, Plan
from kernels.runtime.recompute import blocks_of
from kernels.runtime.runner import run
from kernels.runtime.saved_tensors import SavedTensors, pack
from kernels.runtime.segments import UntraceableError, segments_of
from tests.kernels.runtime.small import batches, config, squared, weights

EXACT = [
    MemoryConfig(recompute="full"),
    MemoryConfig(recompute="full", share=0.4),
    MemoryConfig(recompute="selective"),
    MemoryConfig(recompute="segments"),
    MemoryConfig(packing="lossless"),
    MemoryConfig(recompute="segments", packing="lossless"),
    MemoryConfig(budget_mib=0.05),
    MemoryConfig(to_cpu=True),
]


class Residual(nn.Module):
    """A block with a way round it, a batch norm, dropout and an operation in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.drop(self.norm(self.first(x))) + x)


def deep(blocks: int = 5, width: int = 64) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        body = [Residual(width) for _ in range(blocks)]
        return nn.Sequential(nn.Linear(4, width), *body, nn.Linear(width, 1))


def many(index: int):
    parts = [batches(64 * index + k) for k in range(8)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def kept_bytes(model: nn.Module, plan: Plan | None = None) -> int:
    memory = Memory(MemoryConfig(recompute="segments"), model)
    return memory.measured(plan or Plan("none", 0, "none"), lambda: squared(model, many(0))[0])


@pytest.mark.parametrize("plan", EXACT, ids=str)
def test_exact_plans_change_nothing(plan):
    """Weights, running averages and dropout alike, to the bit."""
    models = []
    for memory in (MemoryConfig(), plan):
        model = deep()
        run(model, many, squared, config(4, 0.01, memory=memory))
        models.append(model)
    assert torch.equal(weights(models[0]), weights(models[1]))
    for (name, mine), other in zip(models[0].named_buffers(), models[1].buffers(), strict=True):
        assert torch.equal(mine, other), name
    assert all("forward" not in vars(m) for m in models[1].modules())


@pytest.mark.parametrize(("packing", "error"), [("bf16", 2e-2), ("fp16", 2e-3), ("int8", 5e-2)])
def test_the_error_of_lossy_packing_is_bounded(packing, error):
    gradients = []
    for kind in ("none", packing):
        model = deep()
        memory = Memory(MemoryConfig(packing=kind), model)
        torch.manual_seed(0)
        with memory.active(), memory.saving():
            loss, _ = squared(model, many(0))
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert 0 < float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < error
    assert memory.count.kept_bytes < 0.6 * memory.count.plain_bytes


def test_bytes_are_what_is_really_kept():
    """Linear keeps its input, tanh its result: counted by hand."""
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
    x = torch.randn(100, 4)
    with SavedTensors(model, "none").active() as count:
        model(x).sum().backward()
    assert count.plain_bytes == count.kept_bytes == 4 * 100 * (4 + 32 + 16)


def test_each_plan_keeps_less():
    model = deep()
    nothing, full = kept_bytes(model), kept_bytes(model, Plan("full", 7, "none"))
    selective = kept_bytes(model, Plan("selective", 7, "none"))
    lossless = kept_bytes(model, Plan("none", 0, "lossless"))
    assert full < selective < nothing
    assert lossless < nothing
    assert kept_bytes(model, Plan("full", 7, "int8")) < full
    some = [kept_bytes(model, Plan("full", n, "none")) for n in range(8)]
    assert some[0] == nothing
    assert some[1:6] == sorted(some[1:6], reverse=True)


def test_a_budget_is_kept_with_as_few_blocks_as_suffice(caplog):
    caplog.set_level(logging.INFO)
    model = deep(12)
    nothing, least = kept_bytes(model), kept_bytes(model, Plan("segments", 99, "none"))
    for share in (1.1, 0.8, 0.5, 0.3):
        budget = max(share * nothing, 1.02 * least)
        memory = Memory(MemoryConfig(budget_mib=budget / 2**20), model)
        memory.choose(lambda: squared(model, many(0))[0])
        assert kept_bytes(model, memory.plan) <= budget
        fewer = Plan(memory.plan.recompute, memory.plan.blocks - 1, "none")
        assert memory.plan.blocks == 0 or kept_bytes(model, fewer) > budget
    assert "activations: " in caplog.text
    tight = Memory(MemoryConfig(budget_mib=1e-3), model)
    tight.choose(lambda: squared(model, many(0))[0])
    assert tight.plan.packing == "lossless"
    assert "no exact plan keeps within 0.0 MiB" in caplog.text


def test_a_plan_is_kept_over_a_resume():
    model = deep()
    memory = Memory(MemoryConfig(budget_mib=0.1), model)
    memory.choose(lambda: squared(model, many(0))[0])
    again = Memory(MemoryConfig(budget_mib=0.1), deep())
    again.load_state_dict(memory.state_dict())
    assert (again.plan, again.is_chosen) == (memory.plan, True)


def test_a_result_changed_in_place_is_noticed():
    class Spoiler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu_(self.first(x)))

    model = nn.Sequential(Spoiler(), nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="changed in place"):
        run(model, batches, squared, config(1, memory=MemoryConfig(recompute="selective")))


def test_models_without_a_fixed_graph_are_told_of_blocks():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if x.sum() > 0 else self.layer(-x)

    with pytest.raises(UntraceableError, match=r"take memory\.recompute='full'"):
        segments_of(Loop())
    run(Loop(), batches, squared, config(2, memory=MemoryConfig(budget_mib=1e-6)))


def test_blocks_are_the_members_of_lists():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "body": deep(3)})
    assert list(blocks_of(model)) == [f"body.{n}" for n in range(5)]
    assert list(blocks_of(nn.Linear(2, 2))) == [""]
    named = Memory(MemoryConfig(recompute="full", blocks=("body.1",)), model)
    assert named.plan.blocks == 1
    with pytest.raises(ValueError, match=r"blocks names tail.*it has body\.0"):
        Memory(MemoryConfig(recompute="full", blocks=("tail",)), model)


def test_an_address_used_again_is_not_taken_for_the_old_tensor():
    """Packed tensors free their originals, whose memory new ones get at once."""
    model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(8)])
    hooks = SavedTensors(model, "int8")
    x = torch.randn(256, 64)
    plain = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    with hooks.active():
        loss = model(x).sum()
    gc.collect()
    packed = torch.autograd.grad(loss, list(model.parameters()))
    for mine, other in zip(packed, plain, strict=True):
        assert float((mine - other).norm()) <= 0.02 * float(other.norm()) + 1e-6


@settings(deadline=None)  # the first calls compile
@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.integers(1_024, 3_000),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_lossless_is_lossless(dtype, size, zeros, seed):
    generator = torch.Generator().manual_seed(seed)
    values = 50 * torch.randn(size, generator=generator)
    values[torch.rand(size, generator=generator) < zeros] = 0.0
    values[:2] = torch.tensor([-0.0, float("inf")]) if dtype.is_floating_point else 0.0
    tensor = values.to(dtype)
    packed = pack(tensor, "lossless")
    if packed is None:
        assert dtype.is_floating_point
        return
    found = packed.restore()
    assert found.dtype == dtype
    assert torch.equal(found, tensor)
    if dtype.is_floating_point:
        assert bool(torch.signbit(found[0]))
    assert packed.bytes < tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("value", [0.0, 1.25])
def test_tensors_of_two_values_become_bits(value):
    mask = torch.rand(4_096, generator=torch.Generator().manual_seed(0)) < 0.5
    tensor = mask.float() * value
    packed = pack(tensor, "lossless")
    assert packed is not None
    assert packed.bytes <= 4_096 / 8 + 4
    assert torch.equal(packed.restore(), tensor)


def test_int8_keeps_its_bound_and_shows_what_is_not_finite():
    values = torch.randn(1_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        -6, 6, 1_000
    )
    packed = pack(values, "int8")
    assert packed is not None
    found = packed.restore()
    for start in range(0, 1_000, 256):
        part = slice(start, start + 256)
        bound = float(values[part].abs().max()) / 254 * 1.001
        assert float((found - values)[part].abs().max()) <= bound
    values[300] = float("nan")
    again = pack(values, "int8")
    assert again is not None
    assert bool(again.restore()[256:512].isnan().all())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recompute": "some"}, "take 'none', 'selective'"),
        ({"packing": "int4"}, "take 'none', 'lossless'"),
        ({"share": 0.0}, "share must lie in"),
        ({"budget_mib": -1.0}, "give 0 for no limit"),
        ({"budget_mib": 1.0, "recompute": "full"}, "not both"),
    ],
)
def test_impossible_settings_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        MemoryConfig(**changes)
