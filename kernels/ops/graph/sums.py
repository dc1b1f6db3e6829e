"""Compiled loops over the edges of rows: weighted sums, extremes and their gradients.

Weights, scales and places may be None: numba compiles one loop per combination, without branches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing

Ints = NDArray[np.int32]
Reals = NDArray[Any]


@compiled_releasing
def _factor(e: int, c: int, weight: Any, place: Any, scale: Any, one: Any) -> Any:
    """Return what the neighbour ``c`` over the edge in place ``e`` is multiplied by."""
    factor = one
    if weight is not None:
        factor *= weight[e] if place is None else weight[place[e]]
    if scale is not None:
        factor *= scale[c]
    return factor


@compiled_releasing
def sum_rows(
    indptr: Ints,
    indices: Ints,
    weight: Reals | None,
    place: Ints | None,
    scale: Reals | None,
    mean: bool,  # noqa: FBT001 - compiled functions take no keywords
    x: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Set rows ``start`` to ``stop - 1`` of ``out`` [rows, F] to sums (means) of neighbours' ``x``.

    Four edges at a time: a row of the result is loaded and stored once for all four.
    """
    width = x.shape[1]
    one = x.dtype.type(1)
    for r in range(start, stop):
        e, end = indptr[r], indptr[r + 1]
        for k in range(width):
            out[r, k] = 0
        while e + 4 <= end:
            a, b, c, d = indices[e], indices[e + 1], indices[e + 2], indices[e + 3]
            fa = _factor(e, a, weight, place, scale, one)
            fb = _factor(e + 1, b, weight, place, scale, one)
            fc = _factor(e + 2, c, weight, place, scale, one)
            fd = _factor(e + 3, d, weight, place, scale, one)
            for k in range(width):
                out[r, k] += (fa * x[a, k] + fb * x[b, k]) + (fc * x[c, k] + fd * x[d, k])
            e += 4
        while e < end:
            a = indices[e]
            fa = _factor(e, a, weight, place, scale, one)
            for k in range(width):
                out[r, k] += fa * x[a, k]
            e += 1
        if mean and end > indptr[r]:
            share = one / x.dtype.type(end - indptr[r])
            for k in range(width):
                out[r, k] *= share


@compiled_releasing
def weight_gradient(
    indptr: Ints,
    indices: Ints,
    scale: Reals | None,
    x: Reals,
    gradient: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Set ``out`` [edges] to the products of each edge's two ends, its target's scaled."""
    width = x.shape[1]
    for r in range(start, stop):
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            total = x.dtype.type(0)
            for k in range(width):
                total += gradient[r, k] * x[c, k]
            out[e] = total if scale is None else total * scale[r]


@compiled_releasing
def extreme_rows(
    indptr: Ints,
    indices: Ints,
    weight: Reals | None,
    sign: int,
    x: Reals,
    out: Reals,
    winner: Ints,
    start: int,
    stop: int,
) -> None:
    """Set ``out`` [rows, F] to the largest (sign 1) or least (-1) message, 0 without edges.

    ``winner`` [rows, F] is the place of the first edge that attains it, -1 without edges.
    NaN wins over everything, as in torch.
    """
    width = x.shape[1]
    one, s = x.dtype.type(1), x.dtype.type(sign)
    for r in range(start, stop):
        for k in range(width):
            out[r, k], winner[r, k] = 0, -1
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            f = _factor(e, c, weight, None, None, one)
            if e == indptr[r]:
                for k in range(width):
                    out[r, k], winner[r, k] = f * x[c, k], e
                continue
            for k in range(width):
                value, best = f * x[c, k], out[r, k]
                better = (s * value > s * best) | ((value != value) & (best == best))  # noqa: PLR0124
                out[r, k] = value if better else best
                winner[r, k] = e if better else winner[r, k]


@compiled_releasing
def extreme_gradient(
    indices: Ints,
    weight: Reals | None,
    winner: Ints,
    gradient: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Add the columns ``start`` to ``stop - 1`` of ``gradient`` to the winners' rows of ``out``."""
    for r in range(len(winner)):
        for k in range(start, stop):
            e = winner[r, k]
            if e >= 0:
                if weight is None:
                    out[indices[e], k] += gradient[r, k]
                else:
                    out[indices[e], k] += gradient[r, k] * weight[e]


@compiled_releasing
def extreme_weight_gradient(
    indices: Ints,
    winner: Ints,
    x: Reals,
    gradient: Reals,
    out: Reals,
    start: int,
    stop: int,
) -> None:
    """Add to ``out`` [edges] what the winners of rows ``start`` to ``stop - 1`` contribute."""
    for r in range(start, stop):
        for k in range(x.shape[1]):
            e = winner[r, k]
            if e >= 0:
                out[e] += gradient[r, k] * x[indices[e], k]
