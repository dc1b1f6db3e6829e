"""Block-sparse attention: every backend equals its definition, forward and backward."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.dispatch import block_sparse_attention
from kernels.ops.attention.gate import BlockGate, block_shares, triton_gate

# Triton runs here only in the process that test_attention_triton.py starts for it.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = ["triton"] if INTERPRETED else ["cpu"]


SIZES = [
    (256, 16, 16, None), (250, 32, 24, None), (37, 64, 64, None), (520, 64, 128, [520, 77]),
    (300, 32, 32, [1, 0]), (128, 16, 16, [64, 128]), (1, 16, 16, None),
]  # fmt: skip
if INTERPRETED:  # which takes a thousand times as long
    SIZES = [(50, 16, 24, None), (60, 16, 16, [60, 33]), (40, 16, 16, [1, 0])]


def drawn(shape, dtype=torch.float32, seed=0):
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=made, dtype=torch.float64).to(dtype) for _ in range(4)]


def random_index(batch, heads, n, block, lengths, *, causal, share=None, double=True, seed=0):
    """What a gate with random scores keeps."""
    config = SparseAttentionConfig(
        heads=heads, head_dim=16, block=block, query_block=block * (1 + double), causal=causal,
        share=share,
    )  # fmt: skip
    made = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, heads, config.tiles(n), config.blocks(n), generator=made)
    return BlockGate(config).select(scores, lengths, n)


def run(backend, inputs, index, **options):
    q, k, v = (x.clone().requires_grad_() for x in inputs[:3])
    out = block_sparse_attention(q, k, v, index, backend=backend, **options)
    out.backward(inputs[3])
    return out.detach(), q.grad, k.grad, v.grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "block", "dim", "lengths"), SIZES)
def test_equals_the_reference(backend, double, causal, n, block, dim, lengths):
    inputs = drawn((2, 2, n, dim))
    limits = torch.tensor(lengths or [n, n])
    index = random_index(2, 2, n, block, limits, causal=causal, double=double)
    options = {
        "block": block,
        "query_block": block * (1 + double),
        "causal": causal,
        "lengths": limits,
    }
    expected = run("reference", inputs, index, **options)
    found = run(backend, inputs, index, **options)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)
        assert not a[
            torch.arange(n)[None, None, :].expand(a.shape[:3]) >= limits[:, None, None]
        ].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_equals_dense_attention_when_all_is_kept(backend, causal):
    n = 56 if INTERPRETED else 100
    inputs = drawn((1, 2, n, 32), torch.float64)
    index = random_index(1, 2, n, 16, torch.tensor([n]), causal=causal, share=1.0)
    found = run(backend, inputs, index, block=16, query_block=32, causal=causal)
    q, k, v = (x.clone().requires_grad_() for x in inputs[:3])
    functional.scaled_dot_product_attention(q, k, v, is_causal=causal).backward(inputs[3])
    dense = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    for a, b in zip(found, (dense, q.grad, k.grad, v.grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_by_finite_differences(backend, causal):
    limits = torch.tensor([40, 23])
    index = random_index(2, 1, 40, 16, limits, causal=causal)
    index[..., 3:] = -1
    inputs = [x.requires_grad_() for x in drawn((2, 1, 40, 16), torch.float64)[:3]]

    def attention(q, k, v):
        return block_sparse_attention(
            q, k, v, index, block=16, query_block=32, causal=causal, lengths=limits, backend=backend
        )

    assert torch.autograd.gradcheck(attention, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_logits_beyond_the_range_of_exp(backend, causal):
    n = 60 if INTERPRETED else 90
    inputs = [x * factor for x, factor in zip(drawn((2, 2, n, 16)), (20, 20, 1, 1), strict=True)]
    limits = torch.tensor([n, 33])
    index = random_index(2, 2, n, 16, limits, causal=causal)
    options = {"block": 16, "query_block": 32, "causal": causal, "lengths": limits}
    expected = run("reference", [x.double() for x in inputs], index, **options)
    for a, b in zip(run(backend, inputs, index, **options), expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_lose_no_more_than_their_own_rounding(backend, dtype):
    inputs = drawn((1, 2, 192, 64), dtype)
    index = random_index(1, 2, 192, 64, torch.tensor([192]), causal=True)
    found = run(backend, inputs, index, causal=True)
    exact = run("reference", [x.double() for x in inputs], index, causal=True)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).norm() / b.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.skipif(not INTERPRETED, reason="in a process of its own: test_attention_triton.py")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("pool", "double", "n"), [(4, True, 130), (16, False, 128)])
def test_the_gate_on_triton_equals_its_definition(causal, pool, double, n):
    lengths = torch.tensor([n, 45])
    q, k = drawn((2, 2, n, 24))[:2]
    drawn_rows = torch.tensor([[0, 99, n - 1], [0, 44, 20]])
    found = []
    for backend in ("reference", "triton"):
        config = SparseAttentionConfig(
            heads=2, head_dim=24, block=16, query_block=16 * (1 + double), causal=causal,
            pool=pool, rank=20, backend=backend, per_log2=0.6,
        )  # fmt: skip
        torch.manual_seed(0)
        gate = BlockGate(config)
        with torch.no_grad():
            for parameter in gate.parameters():
                parameter.normal_()
        pooled = gate.pooled(q, k, lengths)
        shares = block_shares if backend == "reference" else triton_gate().block_shares
        torch.manual_seed(1)
        loss = gate.loss(pooled, q, k, lengths)
        loss.backward()
        grads = [p.grad for p in gate.parameters()]
        target = shares(q, k, drawn_rows, lengths, config)
        found.append([*pooled, target, loss.detach(), *grads, gate.choose(pooled, lengths, n)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
