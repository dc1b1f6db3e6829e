"""Compiled loops of fused messages: add edge attributes, rectify, pool by mean and maximum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.jit import compiled_releasing

Ints = NDArray[np.int32]
Reals = NDArray[Any]


@compiled_releasing
def _message(
    x: Reals, c: int, attributes: Reals, e: int, along: Reals, start: int, stop: int, out: Reals
) -> None:
    """Set columns ``start`` to ``stop - 1`` of ``out`` to a message before it is rectified."""
    for k in range(start, stop):
        out[k] = x[c, k]
    for a in range(along.shape[0]):
        f = attributes[e, a]
        for k in range(start, stop):
            out[k] += f * along[a, k]


@compiled_releasing
def pool_forward(
    indptr: Ints,
    indices: Ints,
    edge: Ints,
    x: Reals,
    attributes: Reals,
    along: Reals,
    out: Reals,
    winner: Ints,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``start`` to ``stop - 1`` of ``out`` [n_dst, 2 F]: means, then maxima.

    ``winner`` [n_dst, F] is the place of the first edge whose message is largest and above 0,
    -1 where there is none (the gradient of a rectified 0 is 0).
    """
    width = x.shape[1]
    message = np.empty(width, x.dtype)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for r in range(start, stop):
        mean, most, first = out[r, :width], out[r, width:], winner[r]
        for k in range(width):
            mean[k], most[k], first[k] = zero, zero, -1
        for e in range(indptr[r], indptr[r + 1]):
            _message(x, indices[e], attributes, edge[e], along, 0, width, message)
            for k in range(width):
                # As written, NaN passes, as through torch's relu.
                value = zero if message[k] <= zero else message[k]  # noqa: FURB136
                mean[k] += value
                better = value > most[k]
                first[k] = e if better else first[k]
                most[k] = value if better else most[k]
        if indptr[r + 1] > indptr[r]:
            share = one / x.dtype.type(indptr[r + 1] - indptr[r])
            for k in range(width):
                mean[k] *= share


@compiled_releasing
def pool_backward(
    indptr: Ints,
    indices: Ints,
    edge: Ints,
    x: Reals,
    attributes: Reals,
    along: Reals,
    winner: Ints,
    gradient: Reals,
    dx: Reals,
    dalong: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Add to columns ``start`` to ``stop - 1`` of ``dx`` [n_src, F] and ``dalong`` [A, F].

    Messages are computed again: cheaper than keeping one per edge. Threads take columns, since
    targets share sources; sums over all edges are float64, row by row.
    """
    width, fields = x.shape[1], along.shape[0]
    message = np.empty(width, x.dtype)
    partial = np.empty((fields, width), x.dtype)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for r in range(len(indptr) - 1):
        if indptr[r + 1] == indptr[r]:
            continue
        share = one / x.dtype.type(indptr[r + 1] - indptr[r])
        for a in range(fields):
            for k in range(start, stop):
                partial[a, k] = 0
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            _message(x, c, attributes, edge[e], along, start, stop, message)
            for k in range(start, stop):
                g = gradient[r, k] * share
                g += gradient[r, width + k] if winner[r, k] == e else zero
                g = g if message[k] > zero else zero
                message[k] = g
                dx[c, k] += g
            for a in range(fields):
                f = attributes[edge[e], a]
                for k in range(start, stop):
                    partial[a, k] += f * message[k]
        for a in range(fields):
            for k in range(start, stop):
                dalong[a, k] += partial[a, k]
