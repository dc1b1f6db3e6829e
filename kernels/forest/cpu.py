"""The compiled forest: scores, and contributions by table, of many rows or of one.

Many rows are handled in blocks, columns first, so that a comparison of a whole block is one short
loop of vector code. For one row the trees take the place of the rows. Both add the trees of a row
up in the same order, so a row scores the same, bit by bit, alone or among others.

``columns``, ``words``, ``threshold``, ``used`` and ``leaf`` are those of ``layout.Layout``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # ships no type information
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.forest.layout import READ_AS_LEFT, READ_AS_ZERO
from kernels.forest.trees import ZERO
from kernels.jit import compiled

BLOCK = 256
"""Rows of a block: its columns stay in the second-level cache, one comparison in the first."""

_VECTOR = 16
"""Rows are handled in multiples of it, so that loops over them have no remainder."""

START, STEP, FIRST, WIDTH, MODEL = range(5)
"""Rows of ``places``: where a tree's table begins, entries from one state to the next, first
target, number of targets, model."""

Rows = NDArray[Any]  # float32 or float64
Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

_ALL = np.uint32(2**32 - 1)
_NONE = np.uint32(0)

# The functions below call each other and so share one file: numba's cache knows the time stamp of
# the file a function stands in, not that of the functions it calls. Positions are unsigned where
# signed ones, which are tested for wrap-around, would keep the compiler from vector code.


@intrinsic  # type: ignore[untyped-decorator]  # numba has no type information
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Return the place of the lowest bit of a uint32 that is not 0."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(word), generate


@compiled
def score_rows(
    x: Rows, columns: Words, words: Words, threshold: Rows, used: Ints, leaf: Reals, out: Reals
) -> None:
    """Write the summed leaves of every row to ``out`` float64 [n]."""
    block = np.zeros((columns.shape[1], BLOCK), x.dtype)
    for start in range(0, len(x), BLOCK):
        n = min(BLOCK, len(x) - start)
        wide = -(-n // _VECTOR) * _VECTOR
        reach, sums = np.empty(wide, np.uint32), np.zeros((8, wide))
        _read_block(x, start, n, columns, block)
        for t in range(len(used)):
            reach[:] = _ALL
            for s in range(used[t]):
                _keep(block[words[0, s, t]], threshold[s, t], words[1, s, t], reach)
            _add_leaves(reach, leaf[t], sums[t % 8])
        for r in range(n):
            out[start + r] = _total(sums[:, r])


@compiled
def score_few(
    x: Rows, columns: Words, words: Words, threshold: Rows, leaf: Reals, out: Reals
) -> None:
    """Like ``score_rows``, one row at a time: faster than a block for up to about ten."""
    for r in range(len(x)):
        out[r] = score_row(x[r], columns, words, threshold, leaf)


@compiled
def score_row(x: Rows, columns: Words, words: Words, threshold: Rows, leaf: Reals) -> float:
    """Return the summed leaves of one row [F]."""
    values = _read_row(x, columns)
    reach = np.full(len(leaf), _ALL)
    chosen = np.empty(len(leaf), x.dtype)
    for s in range(len(threshold)):
        _take(values, words[0, s], chosen)
        _keep_each(chosen, threshold[s], words[1, s], reach)
    return _sum_leaves(reach, leaf)


@compiled
def explain_rows(
    x: Rows,
    columns: Words,
    words: Words,
    threshold: Rows,
    used: Ints,
    table: Reals,
    places: Ints,
    target: Ints,
    out: Reals,
) -> None:
    """Add the contributions of every row to ``out`` float64 [K, n, G].

    Args:
        x: Rows [n, F].
        columns: See ``layout.Layout``, as the next three.
        words: Comparisons.
        threshold: Their thresholds.
        used: Slots in use.
        table: Contributions, state by state, tree by tree.
        places: int64 [5, P], see ``START``.
        target: int64, column of ``out`` that an entry of a state belongs to.
        out: Changed in place.
    """
    block = np.zeros((columns.shape[1], BLOCK), x.dtype)
    for begin in range(0, len(x), BLOCK):
        n = min(BLOCK, len(x) - begin)
        state = np.empty(-(-n // _VECTOR) * _VECTOR, np.uint32)
        _read_block(x, begin, n, columns, block)
        for t in range(places.shape[1]):
            width = places[WIDTH, t]
            if width == 0:
                continue
            state[:] = _NONE
            for s in range(used[t]):
                _count(block[words[0, s, t]], threshold[s, t], words[2, s, t], state)
            targets = target[places[FIRST, t] : places[FIRST, t] + width]
            entries = table[places[START, t] :]
            _add_entries(state, n, entries, places[STEP, t], targets, out[places[MODEL, t]], begin)


@compiled
def explain_row(
    x: Rows,
    columns: Words,
    words: Words,
    threshold: Rows,
    leaf: Reals,
    table: Reals,
    places: Ints,
    target: Ints,
    out: Reals,
) -> float:
    """Add the contributions of one row [F] to ``out`` [L, K, G]; return its summed leaves.

    L is the number of layers of the table that are told.
    """
    values = _read_row(x, columns)
    reach = np.full(len(leaf), _ALL)
    state = np.full(len(leaf), _NONE)
    chosen = np.empty(len(leaf), x.dtype)
    for s in range(len(threshold)):
        _take(values, words[0, s], chosen)
        _keep_each(chosen, threshold[s], words[1, s], reach)
        _count_each(chosen, threshold[s], words[2, s], state)
    flat = out.ravel()
    for t in range(places.shape[1]):
        at = np.uint64(places[START, t] + np.int64(state[t]) * places[STEP, t])
        first = np.uint64(places[FIRST, t])
        width = np.uint64(places[WIDTH, t])
        base = places[MODEL, t] * out.shape[2]
        for _ in range(out.shape[0]):
            for j in range(width):
                flat[np.uint64(base + target[first + j])] += table[at + j]
            at += width
            base += out.shape[1] * out.shape[2]
    return _sum_leaves(reach, leaf)


@compiled
def _read_block(x: Rows, start: int, n: int, columns: Words, block: Rows) -> None:
    """Write rows ``start .. start + n`` as columns; what else the block holds means nothing."""
    for c in range(columns.shape[1]):
        feature, if_nan, if_zero = columns[0, c], _read_as(columns[1, c]), _read_as(columns[2, c])
        for r in range(n):
            block[c, r] = _replaced(x[start + r, feature], if_nan, if_zero)


@compiled
def _read_row(x: Rows, columns: Words) -> Rows:
    values = np.empty(columns.shape[1], x.dtype)
    for c in range(len(values)):
        if_nan, if_zero = _read_as(columns[1, c]), _read_as(columns[2, c])
        values[c] = _replaced(x[columns[0, c]], if_nan, if_zero)
    return values


@compiled
def _read_as(code: int) -> float:
    if code == READ_AS_ZERO:
        return 0.0
    return -np.inf if code == READ_AS_LEFT else np.nan


@compiled
def _replaced(value: float, if_nan: float, if_zero: float) -> float:
    if np.isnan(value):
        return if_nan
    return if_zero if abs(value) <= ZERO else value


@compiled
def _keep(values: Rows, threshold: float, mask: np.uint32, reach: Words) -> None:
    for r in range(len(reach)):
        reach[r] &= _ALL if values[r] <= threshold else mask  # so NaN goes to the right


@compiled
def _count(values: Rows, threshold: float, stride: np.uint32, state: Words) -> None:
    for r in range(len(state)):
        state[r] += _NONE if values[r] <= threshold else stride


@compiled
def _add_leaves(reach: Words, leaf: Reals, total: Reals) -> None:
    for r in range(len(total)):
        total[r] += leaf[lowest_bit(reach[r])]


@compiled
def _add_entries(
    state: Words, n: int, table: Reals, step: int, target: Ints, out: Reals, begin: int
) -> None:
    for r in range(n):
        row, at = np.uint64(begin + r), np.uint64(state[r]) * np.uint64(step)
        for j in range(np.uint64(len(target))):
            out[row, np.uint64(target[j])] += table[at + j]


@compiled
def _take(values: Rows, column: Words, chosen: Rows) -> None:
    for t in range(len(column)):
        chosen[t] = values[column[t]]


# Without a branch and without ``_take``'s loads, the next two become vector code.


@compiled
def _keep_each(values: Rows, threshold: Rows, mask: Words, reach: Words) -> None:
    for t in range(len(reach)):
        reach[t] &= mask[t] | (_NONE - np.uint32(values[t] <= threshold[t]))


@compiled
def _count_each(values: Rows, threshold: Rows, stride: Words, state: Words) -> None:
    for t in range(len(state)):
        state[t] += stride[t] & (np.uint32(values[t] <= threshold[t]) - np.uint32(1))


@compiled
def _sum_leaves(reach: Words, leaf: Reals) -> float:
    sums = np.zeros(8)
    for t in range(0, len(reach), 8):
        for k in range(8):
            sums[k] += leaf[t + k, lowest_bit(reach[t + k])]
    return _total(sums)


@compiled
def _total(sums: Reals) -> float:
    total: float = (sums[0] + sums[4]) + (sums[2] + sums[6])
    total += (sums[1] + sums[5]) + (sums[3] + sums[7])
    return total
