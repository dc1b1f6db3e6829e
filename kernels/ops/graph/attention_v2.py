"""Compiled loops of GATv2's attention, whose scores look at both ends together.

Arrays are flat; sizes and records are those of `attention`. Scores are computed again on the way
back; their gradients, which both ends need, are the only numbers kept per edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ops.graph.attention import FIELDS, MOST, PRODUCT, ROWS, SHARE, room, weighted_means
from kernels.ops.graph.exponential import exp_below_zero
from kernels.ops.graph.lanes import product_adding
from kernels.ops.graph.score_lanes import pair_score, return_score, return_vector

Ints = NDArray[np.int32]
Reals = NDArray[Any]
Lanes = tuple[int, ...]


@compiled_releasing
def gatv2_forward(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    y: Reals,
    att: Reals,
    slope: float,
    heads: Lanes,
    channels: Lanes,
    record: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``out`` and of ``record``; y are the targets' own."""
    h, width = len(heads), len(channels)
    n = h * width
    steep = x.dtype.type(slope)
    weight = np.empty(room(indptr, start, stop) * h, x.dtype)
    for block in range(start, stop, ROWS):
        end, first = min(block + ROWS, stop), indptr[block]
        for r in range(block, end):
            most = (r * FIELDS + MOST) * h
            for k in range(h):
                record[most + k] = -np.inf
            for e in range(indptr[r], indptr[r + 1]):
                for k in range(h):
                    s = k * width
                    score = pair_score(x, indices[e] * n + s, y, r * n + s, att, s, steep, channels)
                    weight[(e - first) * h + k] = score
                    # As written, NaN stays.
                    if not score <= record[most + k]:
                        record[most + k] = score
        weighted_means(indptr, indices, x, heads, channels, weight, record, out, block, end)


@compiled_releasing
def gatv2_by_source(
    indptr: Ints,
    indices: Ints,
    place: Ints,
    x: Reals,
    y: Reals,
    att: Reals,
    record: Reals,
    slope: float,
    heads: Lanes,
    channels: Lanes,
    gradient: Reals,
    dx: Reals,
    dscore: Reals,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``dx`` and their edges of ``dscore`` (CSC)."""
    h, width = len(heads), len(channels)
    n = h * width
    steep = x.dtype.type(slope)
    weight = np.empty(room(indptr, start, stop) * h, x.dtype)
    for block in range(start, stop, ROWS):
        end, first = min(block + ROWS, stop), indptr[block]
        for r in range(block, end):
            for q in range(indptr[r], indptr[r + 1]):
                i, w = indices[q], (q - first) * h
                for k in range(h):
                    s = k * width
                    score = pair_score(x, r * n + s, y, i * n + s, att, s, steep, channels)
                    weight[w + k] = score - record[(i * FIELDS + MOST) * h + k]
        for j in range((indptr[end] - first) * h):
            weight[j] = exp_below_zero(weight[j])
        for r in range(block, end):
            dx[r * n : (r + 1) * n] = 0
            for q in range(indptr[r], indptr[r + 1]):
                i, w, e = indices[q], (q - first) * h, place[q] * h
                for k in range(h):
                    s = k * width
                    a = weight[w + k] * record[(i * FIELDS + SHARE) * h + k]
                    product = product_adding(
                        dx, r * n + s, gradient, i * n + s, x, r * n + s, a, channels
                    )
                    d = a * (product - record[(i * FIELDS + PRODUCT) * h + k])
                    dscore[e + k] = d
                    return_score(
                        x, r * n + s, y, i * n + s, att, s, steep, d, dx, r * n + s, channels
                    )


@compiled_releasing
def gatv2_by_target(
    indptr: Ints,
    indices: Ints,
    x: Reals,
    y: Reals,
    att: Reals,
    slope: float,
    heads: Lanes,
    channels: Lanes,
    dscore: Reals,
    dy: Reals,
    datt: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``dy``; add their part to ``datt``, row by row."""
    h, width = len(heads), len(channels)
    n = h * width
    steep = x.dtype.type(slope)
    partial = np.empty(n, x.dtype)
    for r in range(start, stop):
        dy[r * n : (r + 1) * n] = 0
        partial[:] = 0
        for e in range(indptr[r], indptr[r + 1]):
            for k in range(h):
                s, d = k * width, dscore[e * h + k]
                a, b = indices[e] * n + s, r * n + s
                return_score(x, a, y, b, att, s, steep, d, dy, b, channels)
                return_vector(x, a, y, b, att, s, steep, d, partial, s, channels)
        for k in range(n):
            datt[k] += partial[k]
