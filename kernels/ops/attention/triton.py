"""Triton kernel: a program per query block, and per key block for gradients of keys and values.

The forward pass keeps a running maximum and sum over the listed key blocks (FlashAttention, Dao et
al. 2022); the backward pass recomputes the weights from the saved log-sum-exp. A key block finds
the query blocks that listed it in a transposed list, so nothing is added atomically and results do
not vary from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.ops.attention.config import KernelOptions

MASKED = tl.constexpr(-1e30)  # finite, so that a row without keys has no NaN


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    options: KernelOptions,
) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, n, D] and the log-sum-exp of each row [B * H, padded n].

    Arguments are those of `block_sparse_attention`, checked.
    """
    q, k, v, index = (x.contiguous() for x in (q, k, v, index))
    batch, heads, tiles, width = index.shape
    out = torch.empty_like(q)
    kind = torch.promote_types(q.dtype, torch.float32)
    lse = torch.empty(batch * heads, tiles * options.query_block, dtype=kind, device=q.device)
    sizes = _sizes(q, options)
    _forward[(tiles, batch * heads)](
        q, k, v, index, lengths, out, lse, options.scale, q.shape[2], heads, tiles, width, **sizes
    )
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    out: Tensor,
    lse: Tensor,
    options: KernelOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; ``out`` and ``lse`` are those of `forward`."""
    q, k, v, index, grad = (x.contiguous() for x in (q, k, v, index, grad))
    batch, heads, tiles, width = index.shape
    blocks = tiles * options.query_block // options.block
    delta = (grad.to(lse.dtype) * out.to(lse.dtype)).sum(-1)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    starts, readers = transposed(index, blocks)
    sizes = _sizes(q, options)
    given = (q, k, v, grad, lse, delta, lengths)
    _backward_queries[(tiles, batch * heads)](
        *given, index, dq, options.scale, q.shape[2], heads, tiles, width, **sizes
    )
    _backward_keys[(blocks, batch * heads)](
        *given, starts, readers, dk, dv, options.scale, q.shape[2], heads, tiles, blocks, **sizes
    )
    return dq, dk, dv


def transposed(index: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Return which query blocks list each key block.

    Args:
        index: int64 [B, H, query blocks, w].
        blocks: Number of key blocks.

    Returns:
        int64 [B * H * blocks + 1] where each key block's readers start, and the readers, int64,
        ascending for each key block.
    """
    tiles, width = index.shape[2:]
    flat = index.reshape(-1, tiles * width)
    head = torch.arange(len(flat), device=index.device)[:, None]
    key = torch.where(flat >= 0, head * blocks + flat, len(flat) * blocks).flatten()
    order = key.argsort(stable=True)
    counts = key.bincount(minlength=len(flat) * blocks + 1)
    starts = torch.cat([counts.new_zeros(1), counts[:-1].cumsum(0)])
    return starts, torch.div(order % (tiles * width), width, rounding_mode="floor")


def _sizes(q: Tensor, options: KernelOptions) -> dict[str, Any]:
    return {
        "DIM": q.shape[3],
        "WIDE": triton.next_power_of_2(q.shape[3]),
        "ROWS": options.query_block,
        "BLOCK": options.block,
        "CAUSAL": options.causal,
        "KIND": tl.float64 if q.dtype == torch.float64 else tl.float32,
        # Triton's interpreter multiplies the bit patterns of bfloat16.
        "WIDEN": triton.knobs.runtime.interpret and q.dtype == torch.bfloat16,
    }


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _load(base: Any, places: Any, n: Any, dims: Any, dim: tl.constexpr) -> Any:
    """Load rows of a matrix; zeros beyond n and beyond the head's width."""
    inside = (places[:, None] < n) & (dims[None, :] < dim)
    return tl.load(base + places[:, None] * dim + dims[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _store(base: Any, places: Any, n: Any, dims: Any, dim: tl.constexpr, value: Any) -> None:
    inside = (places[:, None] < n) & (dims[None, :] < dim)
    tl.store(base + places[:, None] * dim + dims[None, :], value, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _dot(a: Any, b: Any, KIND: tl.constexpr, WIDEN: tl.constexpr) -> Any:
    if WIDEN:
        a, b = a.to(KIND), b.to(KIND)
    return tl.dot(a, b, input_precision="ieee", out_dtype=KIND)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _scores(
    queries: Any, keys: Any, rows: Any, columns: Any, length: Any, scale: Any,
    CAUSAL: tl.constexpr, KIND: tl.constexpr, WIDEN: tl.constexpr,
) -> Any:  # fmt: skip
    """Return the logits [rows, columns], `MASKED` where a row may not look."""
    logits = _dot(queries, tl.trans(keys), KIND, WIDEN) * scale
    seen = (columns[None, :] < length) & (rows[:, None] < length)
    if CAUSAL:
        seen = seen & (columns[None, :] <= rows[:, None])
    return tl.where(seen, logits, MASKED)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _forward(
    q: Any, k: Any, v: Any, index: Any, lengths: Any, out: Any, lse: Any, scale: Any,
    n: Any, heads: Any, tiles: Any, width: Any,
    DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, KIND: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    dims = tl.arange(0, WIDE)
    rows = tile * ROWS + tl.arange(0, ROWS)
    queries = _load(q + base, rows, n, dims, DIM)
    top = tl.full((ROWS,), MASKED, KIND)
    total = tl.zeros((ROWS,), KIND)
    result = tl.zeros((ROWS, WIDE), KIND)
    for slot in range(width):
        key_block = tl.load(index + (head * tiles + tile) * width + slot)
        if key_block >= 0:
            columns = key_block * BLOCK + tl.arange(0, BLOCK)
            keys = _load(k + base, columns, n, dims, DIM)
            logits = _scores(queries, keys, rows, columns, length, scale, CAUSAL, KIND, WIDEN)
            higher = tl.maximum(top, tl.max(logits, 1))
            weights = tl.exp(logits - higher[:, None])
            shrink = tl.exp(top - higher)
            total = total * shrink + tl.sum(weights, 1)
            values = _load(v + base, columns, n, dims, DIM)
            part = _dot(weights.to(values.dtype), values, KIND, WIDEN)
            result = result * shrink[:, None] + part
            top = higher
    there = rows < length
    result = tl.where(there[:, None], result / total[:, None], 0.0)
    _store(out + base, rows, n, dims, DIM, result.to(queries.dtype))
    row_lse = tl.where(there, top + tl.log(total), float("inf"))
    tl.store(lse + (head * tiles + tile) * ROWS + tl.arange(0, ROWS), row_lse)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _backward_queries(
    q: Any, k: Any, v: Any, grad: Any, lse: Any, delta: Any, lengths: Any,
    index: Any, dq: Any, scale: Any, n: Any, heads: Any, tiles: Any, width: Any,
    DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, KIND: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    dims = tl.arange(0, WIDE)
    rows = tile * ROWS + tl.arange(0, ROWS)
    queries, upper = _load(q + base, rows, n, dims, DIM), _load(grad + base, rows, n, dims, DIM)
    row_lse = tl.load(lse + head * tiles * ROWS + rows)
    row_delta = tl.load(delta + head * n + rows, mask=rows < n, other=0.0)
    result = tl.zeros((ROWS, WIDE), KIND)
    for slot in range(width):
        key_block = tl.load(index + (head * tiles + tile) * width + slot)
        if key_block >= 0:
            columns = key_block * BLOCK + tl.arange(0, BLOCK)
            keys = _load(k + base, columns, n, dims, DIM)
            values = _load(v + base, columns, n, dims, DIM)
            logits = _scores(queries, keys, rows, columns, length, scale, CAUSAL, KIND, WIDEN)
            weights = tl.exp(logits - row_lse[:, None])
            slope = _dot(upper, tl.trans(values), KIND, WIDEN)
            slope = (weights * (slope - row_delta[:, None])).to(keys.dtype)
            result += _dot(slope, keys, KIND, WIDEN)
    _store(dq + base, rows, n, dims, DIM, (result * scale).to(queries.dtype))


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _backward_keys(
    q: Any, k: Any, v: Any, grad: Any, lse: Any, delta: Any, lengths: Any,
    starts: Any, readers: Any, dk: Any, dv: Any, scale: Any,
    n: Any, heads: Any, tiles: Any, blocks: Any,
    DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, KIND: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    key_block, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    dims = tl.arange(0, WIDE)
    columns = key_block * BLOCK + tl.arange(0, BLOCK)
    keys, values = _load(k + base, columns, n, dims, DIM), _load(v + base, columns, n, dims, DIM)
    key_sum, value_sum = tl.zeros((BLOCK, WIDE), KIND), tl.zeros((BLOCK, WIDE), KIND)
    place = head * blocks + key_block
    for entry in range(tl.load(starts + place), tl.load(starts + place + 1)):
        rows = tl.load(readers + entry) * ROWS + tl.arange(0, ROWS)
        queries = _load(q + base, rows, n, dims, DIM)
        upper = _load(grad + base, rows, n, dims, DIM)
        row_lse = tl.load(lse + head * tiles * ROWS + rows)
        row_delta = tl.load(delta + head * n + rows, mask=rows < n, other=0.0)
        logits = _scores(queries, keys, rows, columns, length, scale, CAUSAL, KIND, WIDEN)
        weights = tl.exp(logits - row_lse[:, None])
        across = tl.trans(weights.to(upper.dtype))
        value_sum += _dot(across, upper, KIND, WIDEN)
        slope = _dot(upper, tl.trans(values), KIND, WIDEN)
        slope = tl.trans((weights * (slope - row_delta[:, None])).to(queries.dtype))
        key_sum += _dot(slope, queries, KIND, WIDEN)
    _store(dk + base, columns, n, dims, DIM, (key_sum * scale).to(keys.dtype))
    _store(dv + base, columns, n, dims, DIM, value_sum.to(values.dtype))
