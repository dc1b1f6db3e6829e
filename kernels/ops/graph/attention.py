"""Compiled loops of fused edge softmax and aggregation, and of its gradient.

Arrays are flat: ``x`` [rows * H * C], scores [rows * H]. Numbers of heads H and channels C come as
tuples of those lengths, see `lanes`. No weight of an edge outlives its block of rows: the gradient
computes them again from what the forward pass left for every target (as FlashAttention does, Dao
et al., NeurIPS 2022), a record of 4 H numbers: scores, largest scores, 1 / totals and products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ops.graph.exponential import exp_below_zero
from kernels.ops.graph.lanes import add_four_scaled, add_scaled, leaky_sum, product_adding

Ints = NDArray[np.int32]
Reals = NDArray[Any]
Lanes = tuple[int, ...]

ROWS = 64
"""Rows whose exponentials are taken together: long loops of vector code, still in the cache."""
SCORE, MOST, SHARE, PRODUCT, FIELDS = 0, 1, 2, 3, 4
"""Places in a target's record, each of H numbers."""


@compiled_releasing
def room(indptr: Ints, start: int, stop: int) -> int:
    """Return the most edges of any block of rows."""
    most = 0
    for block in range(start, stop, ROWS):
        most = max(most, indptr[min(block + ROWS, stop)] - indptr[block])
    return most


@compiled_releasing
def gat_forward(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    score_src: Reals,
    score_dst: Reals,
    slope: float,
    heads: Lanes,
    channels: Lanes,
    record: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``out`` and of ``record``."""
    h = len(heads)
    steep = x.dtype.type(slope)
    weight = np.empty(room(indptr, start, stop) * h, x.dtype)
    for block in range(start, stop, ROWS):
        end, first = min(block + ROWS, stop), indptr[block]
        for r in range(block, end):
            score, most = (r * FIELDS + SCORE) * h, (r * FIELDS + MOST) * h
            for k in range(h):
                record[score + k], record[most + k] = score_dst[r * h + k], -np.inf
            for e in range(indptr[r], indptr[r + 1]):
                leaky_sum(
                    weight, (e - first) * h, score_src, indices[e] * h, record, score, steep,
                    record, most, heads,
                )  # fmt: skip
        weighted_means(indptr, indices, x, heads, channels, weight, record, out, block, end)


@compiled_releasing
def weighted_means(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    heads: Lanes,
    channels: Lanes,
    weight: Reals,
    record: Reals,
    out: Reals,
    block: int,
    end: int,
) -> None:
    """Set rows ``block`` to ``end - 1`` of ``out`` to means of ``x``, weighted by the softmax.

    ``weight`` holds the scores of these rows' edges, ``record`` the largest of each row.
    """
    h, first, one = len(heads), indptr[block], x.dtype.type(1)
    for r in range(block, end):
        most = (r * FIELDS + MOST) * h
        for e in range(indptr[r], indptr[r + 1]):
            add_scaled(weight, (e - first) * h, record, most, -one, heads)
    for j in range((indptr[end] - first) * h):
        weight[j] = exp_below_zero(weight[j])
    for r in range(block, end):
        weighted_sum(indptr, indices, x, heads, channels, weight, first, record, out, r)


@compiled_releasing
def weighted_sum(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    heads: Lanes,
    channels: Lanes,
    weight: Reals,
    first: int,
    record: Reals,
    out: Reals,
    r: int,
) -> None:
    """Set row r of ``out`` to the weighted mean of ``x``, of ``record`` to 1 / totals.

    The edge in place ``first`` has the first weight.
    """
    h, width = len(heads), len(channels)
    n, share = h * width, (r * FIELDS + SHARE) * h
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for k in range(h):
        record[share + k] = zero
    for i in range(indptr[r], indptr[r + 1]):
        add_scaled(record, share, weight, (i - first) * h, one, heads)
    out[r * n : (r + 1) * n] = 0
    e, end = indptr[r], indptr[r + 1]
    while e + 4 <= end:
        a, b, c, d = indices[e] * n, indices[e + 1] * n, indices[e + 2] * n, indices[e + 3] * n
        for k in range(h):
            w, s = (e - first) * h + k, k * width
            add_four_scaled(
                out, r * n + s, x, a + s, b + s, c + s, d + s,
                weight[w], weight[w + h], weight[w + 2 * h], weight[w + 3 * h], channels,
            )  # fmt: skip
        e += 4
    while e < end:
        for k in range(h):
            s, w = k * width, weight[(e - first) * h + k]
            add_scaled(out, r * n + s, x, indices[e] * n + s, w, channels)
        e += 1
    # Dividing the sums is cheaper than dividing every weight.
    for k in range(h):
        if record[share + k] > zero:
            record[share + k] = one / record[share + k]
        for i in range((r * h + k) * width, (r * h + k + 1) * width):
            out[i] *= record[share + k]


@compiled_releasing
def gat_products(
    out: Reals, gradient: Reals, h: int, width: int, record: Reals, start: int, stop: int
) -> None:
    """Complete the records ``start`` to ``stop - 1``: products of result and gradient.

    They stand for the softmax's sums over edges, so that one pass over the edges does.
    """
    for r in range(start, stop):
        for k in range(h):
            product = out.dtype.type(0)
            for c in range((r * h + k) * width, (r * h + k + 1) * width):
                product += gradient[c] * out[c]
            record[(r * FIELDS + PRODUCT) * h + k] = product


@compiled_releasing
def gat_backward(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    score_src: Reals,
    record: Reals,
    slope: float,
    heads: Lanes,
    channels: Lanes,
    gradient: Reals,
    dx: Reals,
    dsrc: Reals,
    ddst: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``dx`` and ``dsrc``; add their part to ``ddst``.

    Reads the edges by source (CSC).
    """
    h, width = len(heads), len(channels)
    n = h * width
    zero, one, steep = x.dtype.type(0), x.dtype.type(1), x.dtype.type(slope)
    weight = np.empty(room(indptr, start, stop) * h, x.dtype)
    unused = np.zeros(h, x.dtype)
    for block in range(start, stop, ROWS):
        end, first = min(block + ROWS, stop), indptr[block]
        for r in range(block, end):
            for q in range(indptr[r], indptr[r + 1]):
                target, w = indices[q] * FIELDS * h, (q - first) * h
                leaky_sum(weight, w, score_src, r * h, record, target, steep, unused, 0, heads)
                add_scaled(weight, w, record, target + MOST * h, -one, heads)
        for j in range((indptr[end] - first) * h):
            weight[j] = exp_below_zero(weight[j])
        for r in range(block, end):
            dx[r * n : (r + 1) * n] = 0
            dsrc[r * h : (r + 1) * h] = 0
            for q in range(indptr[r], indptr[r + 1]):
                i, w = indices[q], (q - first) * h
                target = i * FIELDS * h
                for k in range(h):
                    s = k * width
                    a = weight[w + k] * record[target + SHARE * h + k]
                    product = product_adding(
                        dx, r * n + s, gradient, i * n + s, x, r * n + s, a, channels
                    )
                    below = score_src[r * h + k] + record[target + k] < zero
                    a *= steep if below else one
                    weight[w + k] = a * (product - record[target + PRODUCT * h + k])
                add_scaled(dsrc, r * h, weight, w, one, heads)
                add_scaled(ddst, i * h, weight, w, one, heads)
