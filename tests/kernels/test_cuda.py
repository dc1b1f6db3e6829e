"""What needs a CUDA device: kernels against their definitions, and the runtime's own paths there.

Skipped elsewhere. References are computed in float64.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from connectors.probes import Probes
from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.dispatch import block_sparse_attention
from kernels.ops.attention.gate import BlockGate
from kernels.ops.attention.module import SparseAttention
from kernels.ops.graph import CsrGraph, GATConv, GATv2Conv, aggregate
from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.callbacks import History
from kernels.runtime.compensation import ParametersConfig
from kernels.runtime.compilation import CompileConfig
from kernels.runtime.group import Group
from kernels.runtime.memory import MemoryConfig
from kernels.runtime.precision import PrecisionConfig
from kernels.runtime.profiler import ProfileConfig, Profiler
from kernels.runtime.runner import run
from tests.kernels.runtime.small import Stop, batches, config, make_model, squared, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = "cuda"


def on_device(index):
    return tuple(t.to(CUDA) for t in batches(index))


def attention_inputs(n, dim, dtype):
    made = torch.Generator().manual_seed(n)
    drawn = [torch.randn(2, 2, n, dim, generator=made, dtype=torch.float64) for _ in range(4)]
    return [x.to(CUDA, dtype) for x in drawn]


def attended(inputs, index, **options):
    q, k, v = (x.clone().requires_grad_() for x in inputs[:3])
    out = block_sparse_attention(q, k, v, index, **options)
    out.backward(inputs[3])
    return out.detach(), q.grad, k.grad, v.grad


def relative(found, expected):
    # Against 1 where the exact result is 0, as the gradient of a softmax over one key.
    return float((found.double() - expected).norm() / expected.norm().clamp_min(1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("n", "block", "double", "dim", "lengths"),
    [(1, 16, False, 16, [1, 1]), (250, 16, True, 24, [250, 33]), (520, 64, True, 128, [520, 77]),
     (700, 128, True, 64, [700, 700]), (700, 128, True, 128, [700, 1]),
     (300, 32, False, 32, [300, 0])],
)  # fmt: skip
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
    ids=str,
)
def test_sparse_attention_equals_its_definition(
    n, block, double, dim, lengths, causal, dtype, bound
):
    inputs = attention_inputs(n, dim, dtype)
    limits = torch.tensor(lengths, device=CUDA)
    settings = SparseAttentionConfig(
        heads=2, head_dim=dim, block=block, query_block=block * (1 + double), causal=causal
    )
    made = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 2, settings.tiles(n), settings.blocks(n), generator=made)
    index = BlockGate(settings).to(CUDA).select(scores.to(CUDA), limits, n)
    options = {"block": block, "query_block": settings.query_block, "causal": causal}
    options["lengths"] = limits
    found = attended(inputs, index, backend="triton", **options)
    exact = attended([x.double() for x in inputs], index, backend="reference", **options)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == dtype
        assert relative(a, b) < bound
    again = attended(inputs, index, backend="triton", **options)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_the_module_learns_its_gate_under_autocast():
    settings = SparseAttentionConfig(heads=2, head_dim=32, dense="never")
    attend = SparseAttention(settings).to(CUDA)
    q, k, v = (torch.randn(1, 2, 1024, 32, device=CUDA, requires_grad=True) for _ in "qkv")
    with torch.autocast(CUDA, torch.bfloat16):
        out = attend(q, k, v)
    out.float().sum().backward()
    assert attend.gate_loss is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attend.parameters())
    assert SparseAttention(SparseAttentionConfig(heads=2, head_dim=32)).to(CUDA)(q, k, v).is_cuda


@pytest.mark.parametrize("causal", [False, True])
def test_the_gate_keeps_what_its_definition_keeps(causal):
    q, k = attention_inputs(1_000, 64, torch.float32)[:2]
    lengths, found = torch.tensor([1_000, 333], device=CUDA), []
    for backend in ("reference", "triton"):
        settings = SparseAttentionConfig(heads=2, head_dim=64, causal=causal, backend=backend)
        torch.manual_seed(0)
        gate = BlockGate(settings).to(CUDA)
        pooled = gate.pooled(q, k, lengths)
        torch.manual_seed(1)
        loss = gate.loss(pooled, q, k, lengths)
        loss.backward()
        kept = gate.choose(pooled, lengths, 1_000).sort(-1).values
        found.append((kept, loss.detach(), *(p.grad for p in gate.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def random_graph(n_src=300, n_dst=200, edges=5_000):
    made = torch.Generator().manual_seed(1)
    ends = [torch.randint(0, n, (edges,), generator=made) for n in (n_src, n_dst - 5)]
    return torch.stack(ends)


def both_ways(compute, *inputs):
    """Return results and gradients on the CPU in float64, and on the device in float32."""
    found = []
    for device, dtype in (("cpu", torch.float64), (CUDA, torch.float32)):
        graph = CsrGraph(random_graph().to(device), 300, 200)
        own = [x.to(device, dtype).requires_grad_() for x in inputs]
        out = compute(graph, *own)
        out.backward(torch.linspace(-1, 1, out.numel(), device=device).view(out.shape).to(dtype))
        found.append([t.detach().cpu().double() for t in (out, *(x.grad for x in own))])
    return found


@pytest.mark.parametrize("width", [2, 64, 100])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("weighted", [False, True])
def test_aggregation_equals_the_cpu(width, reduce, weighted):
    torch.manual_seed(2)
    inputs = [torch.randn(300, width), *([torch.randn(5_000)] if weighted else [])]
    exact, found = both_ways(lambda g, *x: aggregate(g, *x, reduce=reduce), *inputs)
    for a, b in zip(found, exact, strict=True):
        assert relative(a, b) < 1e-5


@pytest.mark.parametrize("make", [GATConv, GATv2Conv])
@pytest.mark.parametrize("sizes", [(4, 16), (1, 7), (3, 64)])
def test_attention_layers_equal_the_cpu(make, sizes):
    torch.manual_seed(3)
    heads, channels = sizes
    layer = make((20, 24), channels, heads=heads)
    source, target = torch.randn(300, 20), torch.randn(200, 24)

    def compute(graph, x, y):
        own = make((20, 24), channels, heads=heads).to(x.device, x.dtype)
        own.load_state_dict(layer.state_dict())
        return own((x, y), graph)

    exact, found = both_ways(compute, source, target)
    for a, b in zip(found, exact, strict=True):
        assert relative(a, b) < 1e-5


@pytest.mark.parametrize("compute", ["fp32", "tf32", "bf16", "fp16", "fp8", "adaptive", "auto"])
def test_every_format_trains_and_goes_on_bit_for_bit(tmp_path, compute):
    plan = config(12, 0.02, every=3, batches=2, precision=PrecisionConfig(compute=compute))
    whole, history = make_model().to(CUDA), History()
    first = run(whole, on_device, squared, plan, [history])
    losses = [m.loss for m in history.steps]
    assert first.steps == 12
    assert sum(losses[-4:]) < sum(losses[:4])
    if compute == "auto":
        return  # which format is fastest may differ from run to run
    model = make_model().to(CUDA)
    with pytest.raises(KeyboardInterrupt):
        run(model, on_device, squared, plan, [Stop(7)], tmp_path)
    again = make_model().to(CUDA)
    assert run(again, on_device, squared, plan, folder=tmp_path).steps == 6
    assert torch.equal(weights(whole), weights(again))


def stack(dropout=0.1):
    torch.manual_seed(4)
    layers = [nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(dropout)) for _ in range(6)]
    return nn.Sequential(*layers, nn.Linear(64, 1)).to(CUDA)


def wide(index):
    made = torch.Generator().manual_seed(index)
    x = torch.randn(256, 64, generator=made).to(CUDA)
    return x, x.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "memory",
    [MemoryConfig(recompute="full"), MemoryConfig(recompute="selective"),
     MemoryConfig(recompute="segments"), MemoryConfig(packing="lossless"),
     MemoryConfig(to_cpu=True), MemoryConfig(budget_mib=0.3)],
    ids=str,
)  # fmt: skip
def test_plans_of_memory_change_no_result(memory):
    plain, planned = stack(), stack()
    run(plain, wide, squared, config(4))
    run(planned, wide, squared, config(4, memory=memory))
    torch.testing.assert_close(weights(planned), weights(plain), rtol=1e-6, atol=1e-7)


def test_a_step_too_large_for_the_device_is_taken_in_parts(caplog):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    model = nn.Sequential(nn.Linear(64, 4096), nn.GELU(), nn.Linear(4096, 1)).to(CUDA)

    def large(index):
        x = torch.randn(65_536, 64, generator=torch.Generator().manual_seed(index)).to(CUDA)
        return x, x.mean(dim=1, keepdim=True)

    settings = AccumulationConfig(max_parts=16)
    torch.cuda.set_per_process_memory_fraction(2.5 * 2**30 / total)
    try:
        report = run(model, large, squared, config(3, accumulation=settings))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert report.steps == 3
    assert "parts" in caplog.text


def test_a_compiled_step_equals_an_eager_one():
    eager, compiled = stack(0.0), stack(0.0)
    run(eager, wide, squared, config(4))
    run(compiled, wide, squared, config(4, compilation=CompileConfig(mode="compile")))
    torch.testing.assert_close(weights(compiled), weights(eager), rtol=1e-3, atol=1e-4)


def test_optimizer_on_the_cpu_and_short_parameters():
    for parameters in (ParametersConfig(optimizer_on="cpu"), ParametersConfig(dtype="bf16")):
        model, history = make_model().to(CUDA), History()
        short = PrecisionConfig(compute="bf16")
        plan = config(40, 0.02, parameters=parameters, precision=short)
        run(model, on_device, squared, plan, [history])
        losses = [m.loss for m in history.steps]
        assert sum(losses[-10:]) < sum(losses[:10])


def test_a_group_of_one_speaks_nccl(monkeypatch):
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": 29_611}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with Group.join():
        total = torch.ones(3, device=CUDA)
        torch.distributed.all_reduce(total)
        assert total.tolist() == [1, 1, 1]
        model = make_model().to(CUDA)
        assert run(model, on_device, squared, config(3)).steps == 3


def test_a_profile_names_the_device(tmp_path):
    model = stack()
    with Profiler(tmp_path, ProfileConfig()) as profiler:
        run(model, profiler.reading(wide), squared, config(30), [profiler])
    assert profiler.result is not None
    assert profiler.result.report_path.is_file()


def test_probes_read_the_device():
    pytest.importorskip("pynvml")
    with Probes() as probes:
        assert not probes.without_devices
        found = probes.read()
    assert found["device.0.memory_free_gib"] > 1
