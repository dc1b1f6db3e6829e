"""Compiled loops of fused messages: add edge attributes, rectify, pool by mean and maximum.

Arrays are flat. ``fields`` is a tuple as long as an edge has attributes, ``lanes`` one as long as
the columns that are taken together, see `lanes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing
from kernels.ops.graph.message_lanes import pool_message, return_message

Ints = NDArray[np.int32]
Reals = NDArray[Any]
Sizes = tuple[int, ...]


@compiled_releasing
def pool_forward(
    indptr: Ints,
    indices: Ints,
    edge: Ints,
    x: Reals,
    attributes: Reals,
    along: Reals,
    width: int,
    fields: Sizes,
    lanes: Sizes,
    out: Reals,
    winner: Ints,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``out`` [n_dst * 2 F]: means, then maxima.

    ``winner`` [n_dst * F] is the place of the first edge whose message is largest and above 0,
    -1 where there is none (the gradient of a rectified 0 is 0).
    """
    one = x.dtype.type(1)
    for r in range(start, stop):
        mean, most, first = 2 * r * width, (2 * r + 1) * width, r * width
        out[mean : mean + 2 * width] = 0
        winner[first : first + width] = -1
        for e in range(indptr[r], indptr[r + 1]):
            for s in range(0, width, len(lanes)):
                pool_message(
                    x, indices[e] * width + s, attributes, edge[e] * len(fields), along, s, width,
                    out, mean + s, most + s, winner, first + s, e, fields, lanes,
                )  # fmt: skip
        if indptr[r + 1] > indptr[r]:
            share = one / x.dtype.type(indptr[r + 1] - indptr[r])
            for k in range(mean, mean + width):
                out[k] *= share


@compiled_releasing
def pool_backward(
    indptr: Ints,
    indices: Ints,
    edge: Ints,
    x: Reals,
    attributes: Reals,
    along: Reals,
    width: int,
    fields: Sizes,
    lanes: Sizes,
    winner: Ints,
    gradient: Reals,
    dx: Reals,
    dalong: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Add to the columns of ``dx`` [n_src * F] and ``dalong`` [A * F] of some groups of lanes.

    Messages are computed again: cheaper than keeping one per edge. Threads take columns, since
    targets share sources; sums over all edges are float64, row by row.
    """
    one = x.dtype.type(1)
    low, high = start * len(lanes), stop * len(lanes)
    back = np.zeros(2 * width, x.dtype)
    partial = np.empty(len(fields) * width, x.dtype)
    for r in range(len(indptr) - 1):
        if indptr[r + 1] == indptr[r]:
            continue
        share = one / x.dtype.type(indptr[r + 1] - indptr[r])
        for k in range(low, high):
            back[k] = gradient[2 * r * width + k] * share
            back[width + k] = gradient[(2 * r + 1) * width + k]
        partial[:] = 0
        for e in range(indptr[r], indptr[r + 1]):
            for s in range(low, high, len(lanes)):
                return_message(
                    x, indices[e] * width + s, attributes, edge[e] * len(fields), along, s, width,
                    back, s, width + s, winner, r * width + s, e, dx, partial, fields, lanes,
                )  # fmt: skip
        for a in range(len(fields)):
            for k in range(a * width + low, a * width + high):
                dalong[k] += partial[k]
