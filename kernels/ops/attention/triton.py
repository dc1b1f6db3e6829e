"""Triton kernel: a program per part of a query block, and of a key block for its gradients.

The forward pass keeps a running maximum and sum over the listed key blocks (FlashAttention, Dao et
al. 2022); the backward pass recomputes the weights from the saved log-sum-exp. A key block finds
the query blocks that listed it in a transposed list, so nothing is added atomically and results do
not vary from run to run. Logits and their log-sum-exp are in base 2, whose power is one instruction
of the device; products of float32 are made of three in tf32. Needs compute capability 8.0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.ops.attention.config import KernelOptions

MASKED = tl.constexpr(-1e30)  # finite, so that a row without keys has no NaN
LOG2_E = tl.constexpr(math.log2(math.e))
TOGETHER = 1024
"""Entries of lists that a program looks at at a time."""


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    lengths: Tensor,
    options: KernelOptions,
) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, n, D] and the log-sum-exp (base 2) of each row [B * H, padded n].

    Arguments are those of `block_sparse_attention`, checked.
    """
    q, k, v, index = (x.contiguous() for x in (q, k, v, index))
    batch, heads, tiles, width = index.shape
    out = torch.empty_like(q)
    kind = torch.promote_types(q.dtype, torch.float32)
    lse = torch.empty(batch * heads, tiles * options.query_block, dtype=kind, device=q.device)
    sizes = sizes_of(q.dtype, q.shape[3], options, back=False)
    grid = (batch * heads, tiles * options.query_block // sizes["ROWS"])
    _forward[grid](
        q, k, v, index, lengths, out, lse, q.shape[2], heads, tiles, width,
        LISTED=triton.next_power_of_2(width), **sizes,
    )  # fmt: skip
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
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    delta = row_products(grad, out, lse.dtype)
    starts, readers = transposed(index, blocks)
    sizes = sizes_of(q.dtype, q.shape[3], options, back=True)
    given = (q, k, v, grad, lse, delta, lengths)
    padded = tiles * options.query_block
    _backward_queries[(batch * heads, padded // sizes["ROWS"])](
        *given, index, dq, q.shape[2], heads, tiles, width,
        LISTED=triton.next_power_of_2(width), **sizes,
    )  # fmt: skip
    _backward_keys[(batch * heads, padded // sizes["COLUMNS"])](
        *given, starts, readers, dk, dv, q.shape[2], heads, tiles, blocks, **sizes
    )
    return dq, dk, dv


def transposed(index: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Return which query blocks list each key block.

    Args:
        index: int64 [B, H, query blocks, w].
        blocks: Number of key blocks.

    Returns:
        int64 [B * H * blocks + 1] where each key block's readers start, and the readers, int32,
        ascending for each key block; room for more lies behind them.
    """
    size = index.shape[2] * index.shape[3]
    lists = index.shape[0] * index.shape[1]
    ends = torch.zeros(lists * blocks + 1, dtype=torch.int32, device=index.device)
    readers = torch.empty(lists * size, dtype=torch.int32, device=index.device)
    grid, sizes = (lists, blocks), {"TOGETHER": TOGETHER, "num_warps": 4}
    _count_readers[grid](index, ends, size, blocks, **sizes)
    starts = ends.cumsum(0)
    _list_readers[grid](index, starts, readers, size, index.shape[3], blocks, **sizes)
    return starts, readers


def row_products(one: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the product of each row with the other's, of contiguous [B, H, n, D]; [B, H, n]."""
    dim = one.shape[3]
    out = torch.empty(one.shape[:3], dtype=dtype, device=one.device)
    wide = triton.next_power_of_2(dim)
    together = TOGETHER * 4 // wide
    _row_products[(triton.cdiv(out.numel(), together),)](
        one, other, out, out.numel(), DIM=dim, WIDE=wide, ROWS=together
    )
    return out


def sizes_of(dtype: torch.dtype, dim: int, options: KernelOptions, *, back: bool) -> dict[str, Any]:
    """Return what the kernels are compiled for.

    A program takes ``ROWS`` queries of a query block and ``COLUMNS`` keys of a key block at a time,
    as many as registers and shared memory hold.

    Args:
        dtype: Of queries, keys and values.
        dim: Width of a head.
        options: Blocks, and whether the past alone is seen.
        back: Whether for gradients, which hold more at a time.
    """
    interpreted = triton.knobs.runtime.interpret
    rows, columns, warps, stages = _tiles(dtype, dim, back=back)
    return {
        "SCALE": options.scale,
        "DIM": dim,
        "WIDE": triton.next_power_of_2(dim),
        "TILE": options.query_block,
        "BLOCK": options.block,
        "ROWS": min(rows, options.query_block),
        "COLUMNS": min(columns, options.block),
        "CAUSAL": options.causal,
        "KIND": tl.float64 if dtype == torch.float64 else tl.float32,
        # Triton's interpreter multiplies the bit patterns of bfloat16.
        "WIDEN": interpreted and dtype == torch.bfloat16,
        "num_warps": warps,
        "num_stages": stages,
    }


def _tiles(dtype: torch.dtype, dim: int, *, back: bool) -> tuple[int, int, int, int]:
    """Return rows, columns, warps and stages of the pipeline that loads them.

    Measured on an H200; they fit into the shared memory of devices of capability 8.6, 99 KiB.
    """
    if dtype == torch.float64:
        return 16, 16, 4, 1
    if dtype == torch.float32:
        return (64, 32, 4, 2) if dim <= 64 else (32, 32, 4, 1)
    if dim <= 64:
        return (64, 64, 4, 3) if back else (128, 64, 4, 3)
    return 64, 64, 4, 2


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _count_readers(
    index: tl.tensor, ends: tl.tensor, size: tl.tensor, blocks: tl.tensor, TOGETHER: tl.constexpr
) -> None:
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    count = tl.zeros((TOGETHER,), tl.int32)
    for first in range(0, size, TOGETHER):
        entry = first + tl.arange(0, TOGETHER)
        count += tl.load(index + head * size + entry, mask=entry < size, other=-1) == block
    tl.store(ends + 1 + head * blocks + block, tl.sum(count, 0))


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _list_readers(
    index: tl.tensor, starts: tl.tensor, readers: tl.tensor, size: tl.tensor, width: tl.tensor,
    blocks: tl.tensor, TOGETHER: tl.constexpr,
) -> None:  # fmt: skip
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = tl.load(starts + head * blocks + block)
    for first in range(0, size, TOGETHER):
        entry = first + tl.arange(0, TOGETHER)
        lists = tl.load(index + head * size + entry, mask=entry < size, other=-1) == block
        before = tl.cumsum(lists.to(tl.int32), 0) - 1
        tl.store(readers + place + before, entry // width, mask=lists)
        place += tl.sum(lists.to(tl.int32), 0)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _row_products(
    one: tl.tensor, other: tl.tensor, out: tl.tensor, rows: tl.tensor, DIM: tl.constexpr,
    WIDE: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    row, dims = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE)
    place = row[:, None] * DIM + dims[None, :]
    inside = (row < rows)[:, None] & (dims < DIM)[None, :]
    kind: tl.constexpr = out.dtype.element_ty
    left = tl.load(one + place, mask=inside, other=0.0).to(kind)
    right = tl.load(other + place, mask=inside, other=0.0).to(kind)
    tl.store(out + row, tl.sum(left * right, 1), mask=row < rows)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _load(
    base: tl.tensor, places: tl.tensor, n: tl.tensor, dims: tl.tensor, DIM: tl.constexpr
) -> tl.tensor:
    """Load rows of a matrix; zeros beyond n and beyond the head's width."""
    inside = (places[:, None] < n) & (dims[None, :] < DIM)
    return tl.load(base + places[:, None] * DIM + dims[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _store(
    base: tl.tensor, places: tl.tensor, n: tl.tensor, dims: tl.tensor, DIM: tl.constexpr,
    value: tl.tensor,
) -> None:  # fmt: skip
    inside = (places[:, None] < n) & (dims[None, :] < DIM)
    tl.store(base + places[:, None] * DIM + dims[None, :], value, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _dot(
    a: tl.tensor, b: tl.tensor, KIND: tl.constexpr, WIDEN: tl.constexpr
) -> tl.tensor:  # fmt: skip
    if WIDEN:
        a, b = a.to(KIND), b.to(KIND)
    return tl.dot(a, b, input_precision="tf32x3", out_dtype=KIND)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _masked(
    logits: tl.tensor, rows: tl.tensor, columns: tl.tensor, length: tl.tensor,
    CAUSAL: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return logits, `MASKED` where a row may not look; rows and columns broadcast to them."""
    seen = (columns < length) & (rows < length)
    if CAUSAL:
        seen = seen & (columns <= rows)
    return tl.where(seen, logits, MASKED)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _listed(index: tl.tensor, width: tl.tensor, LISTED: tl.constexpr) -> tl.tensor:
    """Return how many key blocks a list holds, whose empty slots come last."""
    slots = tl.arange(0, LISTED)
    blocks = tl.load(index + slots, mask=slots < width, other=-1)
    return tl.sum((blocks >= 0).to(tl.int32), 0)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _forward(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, index: tl.tensor, lengths: tl.tensor,
    out: tl.tensor, lse: tl.tensor, n: tl.tensor, heads: tl.tensor, tiles: tl.tensor,
    width: tl.tensor, LISTED: tl.constexpr, SCALE: tl.constexpr, DIM: tl.constexpr,
    WIDE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, CAUSAL: tl.constexpr, KIND: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    head, place = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    index += (head * tiles + place // (TILE // ROWS)).to(tl.int64) * width
    dims = tl.arange(0, WIDE)
    rows = place * ROWS + tl.arange(0, ROWS)
    queries = _load(q + base, rows, n, dims, DIM)
    top = tl.full((ROWS,), MASKED, KIND)
    total = tl.zeros((ROWS,), KIND)
    result = tl.zeros((ROWS, WIDE), KIND)
    parts: tl.constexpr = BLOCK // COLUMNS
    for step in range(_listed(index, width, LISTED) * parts):
        first = tl.load(index + step // parts) * BLOCK + step % parts * COLUMNS
        columns = first + tl.arange(0, COLUMNS)
        keys = _load(k + base, columns, n, dims, DIM)
        logits = _dot(queries, tl.trans(keys), KIND, WIDEN) * (SCALE * LOG2_E)
        logits = _masked(logits, rows[:, None], columns[None, :], length, CAUSAL)
        higher = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        values = _load(v + base, columns, n, dims, DIM)
        part = _dot(weights.to(values.dtype), values, KIND, WIDEN)
        result = result * shrink[:, None] + part
        top = higher
    there = rows < length
    result = tl.where(there[:, None], result / total[:, None], 0.0)
    _store(out + base, rows, n, dims, DIM, result.to(queries.dtype))
    row_lse = tl.where(there, top + tl.log2(total), float("inf"))
    tl.store(lse + head.to(tl.int64) * tiles * TILE + rows, row_lse)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _backward_queries(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, grad: tl.tensor, lse: tl.tensor, delta: tl.tensor,
    lengths: tl.tensor, index: tl.tensor, dq: tl.tensor, n: tl.tensor, heads: tl.tensor,
    tiles: tl.tensor, width: tl.tensor, LISTED: tl.constexpr, SCALE: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr, KIND: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    head, place = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    index += (head * tiles + place // (TILE // ROWS)).to(tl.int64) * width
    dims = tl.arange(0, WIDE)
    rows = place * ROWS + tl.arange(0, ROWS)
    queries, upper = _load(q + base, rows, n, dims, DIM), _load(grad + base, rows, n, dims, DIM)
    row_lse = tl.load(lse + head.to(tl.int64) * tiles * TILE + rows)
    row_delta = tl.load(delta + head.to(tl.int64) * n + rows, mask=rows < n, other=0.0)
    result = tl.zeros((ROWS, WIDE), KIND)
    parts: tl.constexpr = BLOCK // COLUMNS
    for step in range(_listed(index, width, LISTED) * parts):
        first = tl.load(index + step // parts) * BLOCK + step % parts * COLUMNS
        columns = first + tl.arange(0, COLUMNS)
        keys = _load(k + base, columns, n, dims, DIM)
        values = _load(v + base, columns, n, dims, DIM)
        logits = _dot(queries, tl.trans(keys), KIND, WIDEN) * (SCALE * LOG2_E)
        logits = _masked(logits, rows[:, None], columns[None, :], length, CAUSAL)
        weights = tl.exp2(logits - row_lse[:, None])
        slope = _dot(upper, tl.trans(values), KIND, WIDEN)
        slope = (weights * (slope - row_delta[:, None])).to(keys.dtype)
        result += _dot(slope, keys, KIND, WIDEN)
    _store(dq + base, rows, n, dims, DIM, (result * SCALE).to(queries.dtype))


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _backward_keys(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, grad: tl.tensor, lse: tl.tensor, delta: tl.tensor,
    lengths: tl.tensor, starts: tl.tensor, readers: tl.tensor, dk: tl.tensor, dv: tl.tensor,
    n: tl.tensor, heads: tl.tensor, tiles: tl.tensor, blocks: tl.tensor, SCALE: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr, KIND: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    """Keys stand in rows here, queries in columns: no weights have to be turned."""
    head, place = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + head // heads)
    base = head.to(tl.int64) * n * DIM
    lse += head.to(tl.int64) * tiles * TILE
    delta += head.to(tl.int64) * n
    starts += head.to(tl.int64) * blocks + place // (BLOCK // COLUMNS)
    dims = tl.arange(0, WIDE)
    columns = place * COLUMNS + tl.arange(0, COLUMNS)
    keys, values = _load(k + base, columns, n, dims, DIM), _load(v + base, columns, n, dims, DIM)
    key_sum, value_sum = tl.zeros((COLUMNS, WIDE), KIND), tl.zeros((COLUMNS, WIDE), KIND)
    parts: tl.constexpr = TILE // ROWS
    begin, end = tl.load(starts), tl.load(starts + 1)
    for step in range((end - begin).to(tl.int32) * parts):
        first = tl.load(readers + begin + step // parts) * TILE + step % parts * ROWS
        rows = first + tl.arange(0, ROWS)
        queries = _load(q + base, rows, n, dims, DIM)
        upper = _load(grad + base, rows, n, dims, DIM)
        row_lse = tl.load(lse + rows)
        row_delta = tl.load(delta + rows, mask=rows < n, other=0.0)
        logits = _dot(keys, tl.trans(queries), KIND, WIDEN) * (SCALE * LOG2_E)
        logits = _masked(logits, rows[None, :], columns[:, None], length, CAUSAL)
        weights = tl.exp2(logits - row_lse[None, :])
        value_sum += _dot(weights.to(upper.dtype), upper, KIND, WIDEN)
        slope = _dot(values, tl.trans(upper), KIND, WIDEN)
        slope = (weights * (slope - row_delta[None, :])).to(queries.dtype)
        key_sum += _dot(slope, queries, KIND, WIDEN)
    _store(dk + base, columns, n, dims, DIM, (key_sum * SCALE).to(keys.dtype))
    _store(dv + base, columns, n, dims, DIM, value_sum.to(values.dtype))
