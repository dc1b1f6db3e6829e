"""Compiled loops of fused edge softmax and aggregation, and of its gradient.

Shapes: ``x`` [rows, H, C], scores [rows, H], ``alpha`` [edges, H] in CSR order. ``lanes`` is a pair
of tuples of lengths H and C: lengths of tuples are known when numba compiles, so loops over heads
and channels have no counters; None leaves the sizes open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.jit import compiled_releasing
from kernels.ops.graph.exponential import exp_below_zero

Ints = NDArray[np.int32]
Reals = NDArray[Any]


@compiled_releasing
def _softmax(flat: Reals, first: int, end: int, heads: int, total: Reals) -> None:
    """Turn scores ``flat[first:end]``, ``heads`` per edge, into their softmax over edges."""
    for h in range(heads):
        most = flat[first + h]
        for j in range(first + h, end, heads):
            most = max(most, flat[j])
        total[h] = most
    for j in range(first, end, heads):
        for h in range(heads):
            flat[j + h] -= total[h]
    for j in range(first, end):
        flat[j] = exp_below_zero(flat[j])
    for h in range(heads):
        total[h] = 0
    for j in range(first, end, heads):
        for h in range(heads):
            total[h] += flat[j + h]
    for h in range(heads):
        total[h] = total.dtype.type(1) / total[h]
    for j in range(first, end, heads):
        for h in range(heads):
            flat[j + h] *= total[h]


@compiled_releasing
def _weighted_sum(
    indices: Ints, x: Reals, alpha: Reals, lanes: Any, out: Reals, first: int, end: int
) -> None:
    """Add ``alpha * x`` over the places ``first`` to ``end - 1`` to ``out`` [H, C]."""
    heads = x.shape[1] if lanes is None else len(lanes[0])
    width = x.shape[2] if lanes is None else len(lanes[1])
    e = first
    while e + 4 <= end:
        a, b, c, d = indices[e], indices[e + 1], indices[e + 2], indices[e + 3]
        for h in range(heads):
            fa, fb, fc, fd = alpha[e, h], alpha[e + 1, h], alpha[e + 2, h], alpha[e + 3, h]
            for k in range(width):
                out[h, k] += (fa * x[a, h, k] + fb * x[b, h, k]) + (
                    fc * x[c, h, k] + fd * x[d, h, k]
                )
        e += 4
    while e < end:
        a = indices[e]
        for h in range(heads):
            fa = alpha[e, h]
            for k in range(width):
                out[h, k] += fa * x[a, h, k]
        e += 1


@compiled_releasing
def gat_forward(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    score_src: Reals,
    score_dst: Reals,
    slope: float,
    lanes: Any,
    alpha: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``out`` and their edges of ``alpha``."""
    heads = x.shape[1] if lanes is None else len(lanes[0])
    flat = alpha.reshape(-1)
    total = np.empty(heads, x.dtype)
    steep = x.dtype.type(slope)
    for r in range(start, stop):
        first, end = indptr[r], indptr[r + 1]
        out[r] = 0
        if first == end:
            continue
        for e in range(first, end):
            c = indices[e]
            for h in range(heads):
                z = score_src[c, h] + score_dst[r, h]
                alpha[e, h] = z if z >= 0 else z * steep
        _softmax(flat, first * heads, end * heads, heads, total)
        _weighted_sum(indices, x, alpha, lanes, out[r], first, end)


@compiled_releasing
def gat_backward(
    indptr: Ints,
    indices: Ints,
    place: Ints,
    x: Reals,
    score_src: Reals,
    target: Reals,
    slope: float,
    lanes: Any,
    alpha: Reals,
    gradient: Reals,
    dx: Reals,
    dsrc: Reals,
    dscore: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``dx`` and ``dsrc``, and their edges of ``dscore``.

    Reads the edges by source (CSC). ``target`` [n_dst, 2, H] holds the targets' scores and, as in
    FlashAttention (Dao et al., NeurIPS 2022), the product of result and gradient: it stands for
    the softmax's sum over the edges, so that one pass does.
    """
    heads = x.shape[1] if lanes is None else len(lanes[0])
    width = x.shape[2] if lanes is None else len(lanes[1])
    steep = x.dtype.type(slope)
    for r in range(start, stop):
        dx[r] = 0
        dsrc[r] = 0
        for q in range(indptr[r], indptr[r + 1]):
            i, e = indices[q], place[q]
            for h in range(heads):
                product = x.dtype.type(0)
                a = alpha[e, h]
                for k in range(width):
                    product += gradient[i, h, k] * x[r, h, k]
                for k in range(width):
                    dx[r, h, k] += a * gradient[i, h, k]
                d = a * (product - target[i, 1, h])
                if score_src[r, h] + target[i, 0, h] < 0:
                    d *= steep
                dscore[e, h] = d
                dsrc[r, h] += d


@compiled_releasing
def sum_edges(indptr: Ints, values: Reals, out: Reals, start: int, stop: int) -> None:
    """Set rows ``start`` to ``stop - 1`` of ``out`` [rows, H] to sums of ``values`` [edges, H]."""
    for r in range(start, stop):
        out[r] = 0
        for e in range(indptr[r], indptr[r + 1]):
            for h in range(out.shape[1]):
                out[r, h] += values[e, h]
