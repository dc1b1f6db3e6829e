"""The gate's passes over all positions in Triton: means, scores of block pairs, shares of blocks.

Each is one kernel that keeps nothing of the size of its products in memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.ops.attention.config import SparseAttentionConfig
from kernels.ops.current_device import current_device_of

MASKED = tl.constexpr(-1e30)  # finite, so that differences are no NaN
LOG2_E = tl.constexpr(math.log2(math.e))
LEAST = 16
"""Least side of a product's operands."""
POSITIONS, MEANS, ROWS = 128, 64, 64
"""Positions, means of keys and drawn rows that a program takes at a time."""


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _means(
    x: tl.tensor, lengths: tl.tensor, out: tl.tensor, n: tl.tensor, heads: tl.tensor,
    groups: tl.tensor, DIM: tl.constexpr, WIDE: tl.constexpr, POOL: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + head // heads)
    group, dims = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS), tl.arange(0, WIDE)
    position = group[:, None] * POOL + tl.arange(0, POOL)[None, :]
    inside = (position < length)[:, :, None] & (dims < DIM)[None, None, :]
    place = (head * n + position)[:, :, None] * DIM + dims[None, None, :]
    rows = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    count = tl.minimum(tl.maximum(length - group * POOL, 1), POOL).to(tl.float32)
    found = tl.sum(rows, 1) / count[:, None]
    kept = (group < groups)[:, None] & (dims < DIM)[None, :]
    tl.store(out + (head * groups + group)[:, None] * DIM + dims[None, :], found, mask=kept)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _ranked(
    left: tl.tensor, right: tl.tensor, temperature: tl.tensor, lengths: tl.tensor, out: tl.tensor,
    heads: tl.tensor, tiles: tl.tensor, blocks: tl.tensor, RANK: tl.constexpr,
    WIDE: tl.constexpr, QUERIES: tl.constexpr, PADDED: tl.constexpr, PER_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr, POOL: tl.constexpr, OWN: tl.constexpr, CAUSAL: tl.constexpr,
) -> None:  # fmt: skip
    head, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    heat = tl.load(temperature + head % heads)
    row, rank = tl.arange(0, PADDED), tl.arange(0, WIDE)
    first = head * tiles * QUERIES + tile * QUERIES
    mine = (row < QUERIES)[:, None] & (rank < RANK)[None, :]
    queries = tl.load(left + (first + row)[:, None] * RANK + rank[None, :], mask=mine, other=0.0)
    means: tl.constexpr = CHUNK * PER_BLOCK
    for start in range(0, blocks, CHUNK):
        mean = start * PER_BLOCK + tl.arange(0, means)
        filled = (mean * POOL < length) & (mean < blocks * PER_BLOCK)
        place = (head * blocks * PER_BLOCK + mean)[:, None] * RANK + rank[None, :]
        keys = tl.load(right + place, mask=filled[:, None] & (rank < RANK)[None, :], other=0.0)
        logits = tl.dot(queries, tl.trans(keys), input_precision="tf32x3")
        logits = tl.where((row < QUERIES)[:, None] & filled[None, :], logits, MASKED)
        logits = tl.reshape(logits, (PADDED, CHUNK, PER_BLOCK))
        most = tl.max(tl.max(logits, 2), 0)
        raised = tl.exp2((logits - most[None, :, None]) * LOG2_E)
        raised = tl.where(logits > MASKED, raised, 0.0)
        total = tl.sum(tl.sum(raised, 2), 0)
        block = start + tl.arange(0, CHUNK)
        score = (most + tl.log(tl.maximum(total, 1e-30))) * heat
        allowed = block * (PER_BLOCK * POOL) < length
        if CAUSAL:
            allowed = allowed & (block < (tile + 1) * OWN)
        # NaN counts as 0, and nothing goes before a block of the query block's own.
        score = tl.where(score == score, tl.minimum(tl.maximum(score, -1e29), 1e29), 0.0)  # noqa: PLR0124
        score = tl.where(allowed, score, float("-inf"))
        own = block - tile * OWN
        score = tl.where((own >= 0) & (own < OWN), 1e30 * (OWN - own), score)
        tl.store(out + (head * tiles + tile) * blocks + block, score, mask=block < blocks)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _block_lse(
    q: tl.tensor, k: tl.tensor, rows: tl.tensor, lengths: tl.tensor, out: tl.tensor,
    n: tl.tensor, heads: tl.tensor, blocks: tl.tensor, count: tl.tensor, SCALE: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    drawn = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    row = tl.load(rows + head // heads * count + drawn, mask=drawn < count, other=0)
    column, dims = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDE)
    wide = (dims < DIM)[None, :]
    queries = tl.load(
        q + (head * n + row)[:, None] * DIM + dims[None, :],
        mask=(drawn < count)[:, None] & wide, other=0.0,
    )  # fmt: skip
    keys = tl.load(
        k + (head * n + column)[:, None] * DIM + dims[None, :],
        mask=(column < n)[:, None] & wide, other=0.0,
    )  # fmt: skip
    if WIDEN:
        queries, keys = queries.to(tl.float32), keys.to(tl.float32)
    logits = tl.dot(queries, tl.trans(keys), input_precision="tf32x3", out_dtype=tl.float32)
    # A sequence without positions sees its first one.
    seen = column[None, :] < tl.maximum(length, 1)
    if CAUSAL:
        seen = seen & (column[None, :] <= row[:, None])
    logits = tl.where(seen, logits * SCALE, MASKED)
    most = tl.max(logits, 1)
    total = tl.sum(tl.exp2((logits - most[:, None]) * LOG2_E), 1)
    place = (head * count + drawn) * blocks + block
    tl.store(out + place, most + tl.log(total), mask=drawn < count)


def fits(config: SparseAttentionConfig) -> bool:
    """Whether a query block's projected means and a chunk of the keys' fit into shared memory."""
    queries, per_block = config.query_block // config.pool, config.block // config.pool
    return max(queries, per_block) <= MEANS and queries * config.rank <= MEANS * LEAST * 2


def ranked_sizes(config: SparseAttentionConfig, rank: int) -> dict[str, Any]:
    """Return what the kernel of `ranked` is compiled for; ``rank`` is that of the projections."""
    per_block, queries = config.block // config.pool, config.query_block // config.pool
    return {
        "RANK": rank,
        "WIDE": max(LEAST, triton.next_power_of_2(rank)),
        "QUERIES": queries,
        "PADDED": max(LEAST, queries),
        "PER_BLOCK": per_block,
        "CHUNK": MEANS // per_block,
        "POOL": config.pool,
        "OWN": config.own,
        "CAUSAL": config.causal,
        "num_stages": 2,
    }


def means(x: Tensor, lengths: Tensor, config: SparseAttentionConfig) -> Tensor:
    """Return the mean of the valid ones of each ``pool`` positions, float32 [B, H, m, D].

    Args:
        x: Queries or keys [B, H, n, D].
        lengths: int64 [B].
        config: Settings.
    """
    batch, heads, n, dim = x.shape
    groups, together = config.blocks(n) * config.block // config.pool, POSITIONS // config.pool
    out = torch.empty(batch, heads, groups, dim, dtype=torch.float32, device=x.device)
    with current_device_of(out):
        _means[batch * heads, triton.cdiv(groups, together)](
            x.contiguous(), lengths.contiguous(), out, n, heads, groups, DIM=dim,
            WIDE=triton.next_power_of_2(dim), POOL=config.pool, GROUPS=together,
        )  # fmt: skip
    return out


def ranked(
    left: Tensor, right: Tensor, temperature: Tensor, lengths: Tensor, n: int,
    config: SparseAttentionConfig,
) -> Tensor:  # fmt: skip
    """Return the scores that rank key blocks, float32 [B, H, query blocks, key blocks].

    A query block's own blocks get the largest ones, in order; those that it may not keep -inf.

    Args:
        left: Projected means of queries, scaled, float32 [B, H, query blocks * a, rank].
        right: Projected means of keys, float32 [B, H, key blocks * b, rank].
        temperature: Factor of the scores, float32 [H].
        lengths: int64 [B].
        n: Positions of the (padded) sequences.
        config: Settings.
    """
    batch, heads = left.shape[:2]
    tiles, blocks = config.tiles(n), config.blocks(n)
    out = torch.empty(batch, heads, tiles, blocks, dtype=torch.float32, device=left.device)
    with current_device_of(out):
        _ranked[batch * heads, tiles](
            left.contiguous(), right.contiguous(), temperature, lengths.contiguous(), out,
            heads, tiles, blocks, **ranked_sizes(config, left.shape[3]),
        )  # fmt: skip
    return out


def block_shares(
    q: Tensor, k: Tensor, rows: Tensor, lengths: Tensor, config: SparseAttentionConfig
) -> Tensor:
    """Return the share of each key block in the dense attention of some rows.

    Arguments and result are those of `gate.block_shares`.
    """
    batch, heads, n, dim = q.shape
    count, blocks = rows.shape[1], config.blocks(n)
    out = torch.empty(batch, heads, count, blocks, dtype=torch.float32, device=q.device)
    wide = q.dtype == torch.float64 or (
        triton.knobs.runtime.interpret and q.dtype == torch.bfloat16
    )
    with current_device_of(out):
        _block_lse[batch * heads, blocks, triton.cdiv(count, ROWS)](
            q.contiguous(), k.to(q.dtype).contiguous(), rows.contiguous(), lengths.contiguous(),
            out, n, heads, blocks, count, SCALE=config.head_dim**-0.5, DIM=dim,
            WIDE=triton.next_power_of_2(dim), ROWS=ROWS, BLOCK=config.block,
            CAUSAL=config.causal, WIDEN=wide,
        )  # fmt: skip
    return out.softmax(-1)
