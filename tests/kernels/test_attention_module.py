"""`SparseAttention`: the gate learns by itself, and dense attention serves where it is faster."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from torch.nn import functional

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.attention.crossover import Crossover
from kernels.ops.attention.dispatch import block_sparse_attention
from kernels.ops.attention.gate import BlockGate, block_shares, candidates
from kernels.ops.attention.module import SparseAttention


def config_of(**options):
    defaults = {"heads": 2, "head_dim": 16, "block": 16, "query_block": 32, "dense": "never",
                "pool": 4, "rank": 16}  # fmt: skip
    return SparseAttentionConfig(**{**defaults, **options})


def drawn(n=320, batch=2, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(batch, 2, n, 16) for _ in range(3)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, [200, 77], [200, 0]])
@pytest.mark.parametrize("dense", ["never", "always", "measured"])
def test_equals_dense_attention_when_all_is_kept(causal, lengths, dense):
    q, k, v = drawn(200)
    module = SparseAttention(config_of(causal=causal, share=1.0, dense=dense))
    limits = None if lengths is None else torch.tensor(lengths)
    out = module(q, k, v, limits)
    for row, length in enumerate(lengths or [200, 200]):
        part = (x[row : row + 1, :, :length] for x in (q, k, v))
        expected = functional.scaled_dot_product_attention(*part, is_causal=causal)
        torch.testing.assert_close(out[row : row + 1, :, :length], expected, rtol=1e-4, atol=1e-5)
        assert not out[row, :, length:].any()


@pytest.mark.parametrize("causal", [False, True])
def test_selection_keeps_own_blocks_first_and_then_the_best(causal):
    config = config_of(causal=causal)
    n, lengths = 320, torch.tensor([320, 100])
    scores = torch.rand(2, 2, config.tiles(n), config.blocks(n))
    index = BlockGate(config).select(scores, lengths, n)
    allowed = candidates(lengths, n, config).expand_as(scores)
    for place in torch.cartesian_prod(*map(torch.arange, index.shape[:3])):
        b, h, tile = place.tolist()
        own = [2 * tile, 2 * tile + 1]
        others = [j for j in range(config.blocks(n)) if allowed[b, h, tile, j] and j not in own]
        others.sort(key=lambda j: -scores[b, h, tile, j])
        wanted = (own + others)[: config.kept(n)]
        assert [j for j in index[b, h, tile].tolist() if j >= 0] == wanted


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_broken_query_shows_no_row_the_future(wrong):
    config = config_of(block=16, query_block=16, causal=True, share=0.7, gate_weight=0.0)
    q, k, v = drawn(48, batch=1)
    q[0, 0, 20] = wrong
    module = SparseAttention(config)
    index = module.kept(q, k, torch.tensor([48]))
    assert torch.equal(index[0, 0, :, 0], torch.arange(3))
    before = module(q, k, v)[0, 0]
    v[0, 0, 30] += 1
    after = module(q, k, v)[0, 0]
    others = [row for row in range(30) if row != 20]
    assert torch.equal(before[others], after[others])


def test_lengths_need_not_lie_side_by_side():
    q, k, v = drawn(100)
    module = SparseAttention(config_of())
    table = torch.tensor([[20, 1], [90, 2]])
    assert torch.equal(module(q, k, v, table[:, 0]), module(q, k, v, table[:, 0].clone()))


def test_the_gate_learns_and_changes_no_other_gradient():
    inputs = [x.requires_grad_() for x in drawn()]
    module = SparseAttention(config_of())
    out = module(*inputs)
    out.square().sum().backward()
    taught = [x.grad.clone() for x in inputs]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.gate.parameters())
    for x in inputs:
        x.grad = None
    again = SparseAttention(config_of(gate_weight=0.0))
    again.load_state_dict(module.state_dict())
    again(*inputs).square().sum().backward()
    assert all(torch.equal(x.grad, grad) for x, grad in zip(inputs, taught, strict=True))
    assert all(p.grad is None for p in again.gate.parameters())
    assert module.eval()(*inputs).grad_fn is not None


def test_teaching_raises_the_attention_kept():
    """Half of the dimensions hold what attention follows, the other half a louder nothing."""
    torch.manual_seed(0)
    config = config_of(heads=1, rank=16, sampled_rows=64)
    topics = torch.randn(20, 16).repeat_interleave(16, 0)
    mask = (torch.arange(16) < 8).float()
    gate = BlockGate(config)
    optimizer = torch.optim.Adam(gate.parameters(), lr=3e-2)
    lengths = torch.tensor([320])

    def batch():
        noise = torch.randn(20, 16).repeat_interleave(16, 0)
        k = topics * mask * 3 + noise.roll(7, 0) * (1 - mask) * 4
        order = torch.randperm(20).repeat_interleave(16) * 16 + torch.arange(16).repeat(20)
        q = topics[order] * mask * 3  # what is loud in the keys finds no echo in the queries
        return q.view(1, 1, 320, 16), k.view(1, 1, 320, 16)

    def kept(q, k):
        index = gate.select(gate.scores(*gate.pooled(q, k, lengths)), lengths, 320)
        shares = block_shares(q, k, torch.arange(320)[None], lengths, config)
        picked = torch.zeros(1, 1, 10, 20).scatter_(3, index, 1.0).repeat_interleave(32, 2)
        return float((shares * picked).sum(-1).mean())

    losses = []
    for _ in range(60):
        q, k = batch()
        loss = gate.loss(gate.pooled(q, k, lengths), q, k, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert kept(*batch()) > 0.9


def test_crossover_is_measured_once_logged_and_kept(tmp_path, caplog):
    calls = []

    def attention(name):
        def run(q, k, v):
            calls.append(name)
            return q + k + v if name == "quick" else (q @ k.mT @ v @ v.mT @ v @ v.mT) @ v

        return run

    like, path = torch.zeros(1, 1, 1, 16), tmp_path / "kept" / "crossover.json"
    found = Crossover(path)
    with caplog.at_level(logging.INFO):
        assert found.sparse_pays(lambda: attention("quick"), attention("slow"), like, 900, "case")
        assert not found.sparse_pays(
            lambda: attention("slow"), attention("quick"), like, 900, "other"
        )
    assert "sparse from now on" in caplog.text
    assert "dense from now on" in caplog.text
    done = len(calls)
    assert found.sparse_pays(lambda: attention("quick"), attention("slow"), like, 1000, "case")
    assert Crossover(path).sparse_pays(
        lambda: attention("quick"), attention("slow"), like, 1024, "case"
    )
    assert len(calls) == done
    assert all("n=1024" in key for key in json.loads(path.read_text()))


def test_short_sequences_take_dense_attention_and_say_so(caplog):
    q, k, v = drawn(300)
    crossover = Crossover()
    crossover.sparse_pays = lambda *_: False  # as measured on a quiet machine
    module = SparseAttention(config_of(dense="measured"), crossover)
    with caplog.at_level(logging.INFO, "kernels.ops.attention.module"):
        out = module(q, k, v)
        module(q, k, v)
    assert caplog.text.count("attention at n=300: dense, 8 of 20 key blocks") == 1
    torch.testing.assert_close(out, functional.scaled_dot_product_attention(q, k, v))
    with caplog.at_level(logging.INFO, "kernels.ops.attention.module"):
        SparseAttention(config_of())(q, k, v)
    assert "attention at n=300: sparse on cpu, 8 of 20 key blocks" in caplog.text
    assert module.gate_loss > 0  # the gate learns for longer sequences to come


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_mixed_precision(dtype):
    q, k, v = (x.to(dtype) for x in drawn(300))
    module = SparseAttention(config_of(causal=True)).to(dtype)
    out = module(q, k, v)
    out.sum().backward()
    assert out.dtype == dtype
    assert all(p.grad.isfinite().all() for p in module.gate.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        module(q, k, v).sum().backward()
    assert all(p.grad.isfinite().all() for p in module.gate.parameters())


def test_measuring_draws_nothing_from_the_callers_generator():
    module = SparseAttention(config_of(dense="measured", gate_weight=0.0, sampled_rows=1))
    q, k, v = drawn(512)
    before = torch.get_rng_state()
    module(q, k, v)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("options", "message"), [
    ({"head_dim": 8}, "head_dim must be 16 to 128, got 8"),
    ({"block": 48}, "block must be 16, 32, 64 or 128, got 48"),
    ({"query_block": 64}, "query_block must be block or twice that"),
    ({"pool": 5}, "pool must divide block"),
    ({"share": 0.0}, "share must lie in"),
    ({"per_log2": 0.0}, "per_log2 must be above 0"),
    ({"heads": 0}, "heads must be at least 1"),
    ({"gate_weight": -1.0}, "gate_weight must be 0 or more"),
    ({"backend": "cuda"}, "backend must be one of"),
    ({"dense": "sometimes"}, "dense must be"),
])  # fmt: skip
def test_bad_settings_name_the_mend(options, message):
    with pytest.raises(ValueError, match=message):
        config_of(**options)


def test_bad_tensors_name_the_mend():
    q = torch.zeros(1, 2, 64, 16)
    index = torch.arange(4).view(1, 1, 4, 1).repeat(1, 2, 1, 1)

    def call(q=q, k=q, v=q, index=index, **options):
        given = {"block": 16, "query_block": 16, **options}
        return block_sparse_attention(q, k, v, index, **given)

    call()
    twice = torch.cat([index, index], -1)
    gap = torch.cat([index, index - index - 1, (index + 1) % 4], -1)
    future = torch.cat([index, (index + 1) % 4], -1)
    for options, message in [
        ({"k": q[:, :1]}, "must have one shape"),
        ({"k": q.double()}, "must share a dtype"),
        ({"lengths": torch.tensor([65])}, "lengths must lie in 0..64"),
        ({"lengths": torch.tensor([1, 1])}, "one number per sequence"),
        ({"index": index.int()}, "index must be int64"),
        ({"index": index[:, :1]}, "index must be \\[1, 2, 4, w\\]"),
        ({"index": index * 0}, "its own 1 key blocks first"),
        ({"index": twice}, "each once"),
        ({"index": gap}, "then -1"),
        ({"index": future, "causal": True}, "that come earlier"),
        ({"block": 24}, "block must be"),
        ({"backend": "fast"}, "backend must be one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**options)
    with pytest.raises(ValueError, match="heads=2, head_dim=16"):
        SparseAttention(config_of())(q[:, :1], q[:, :1], q[:, :1])
