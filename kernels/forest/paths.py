"""Exact path-dependent SHAP values of one tree from the paths to its leaves.

A leaf of output ``v`` whose path tests n distinct features plays a game of its own: with the
features in S known it is reached by the share ``prod over S of o * prod over the rest of z``, where
``z`` is the share of the training rows that a feature's tests let pass and ``o`` is 1 when they
let this row pass, else 0. Summed over leaves this is the game of TreeSHAP (Lundberg et al. 2020).
Its Shapley value of feature i is

    v (o_i - z_i) sum over k of k! (n - 1 - k)! / n! [y^k] prod over j != i of (z_j + o_j y).

Features with ``o = 0`` only shrink the product, so all of them get the same value, and what is left
is the product of ``z_j + y`` over the features with ``o = 1``, from which one factor is taken out
by division from the top, which is stable as z <= 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.forest.layout import Vertices
from kernels.forest.trees import MISSING_NAN, MISSING_ZERO, ZERO
from kernels.jit import compiled

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Rows = NDArray[np.float32] | NDArray[np.float64]
Flags = NDArray[np.bool_]

# As in cpu.py, functions that call each other share a file because of numba's cache.


@compiled
def fill_tables(
    trees: Vertices,
    chosen: Ints,
    states: Ints,
    start: Ints,
    step: Ints,
    weights: Reals,
    table: Reals,
) -> None:
    """Write the contributions of every state of some trees.

    Args:
        trees: All trees.
        chosen: int64 [m], trees to tabulate.
        states: int64 [m], their states.
        start: int64 [m], where the table of each begins.
        step: int64 [m], entries from one state to the next; the first of them hold one value per
            distinct feature of the tree.
        weights: float64 [., .], ``shapley_weights`` of the deepest path.
        table: float64, zeros; filled in place.
    """
    for i in range(len(chosen)):
        t = chosen[i]
        first, m = trees.nodes[t], trees.nodes[t + 1] - trees.nodes[t]
        width = trees.features[t + 1] - trees.features[t]
        right = np.empty(m, np.bool_)
        for state in range(states[i]):
            for k in range(m):
                digit = state // trees.stride[first + k] % trees.states[first + k]
                right[k] = digit > trees.rank[first + k]
            at = start[i] + state * step[i]
            _add_paths(trees, t, right, weights, table[at : at + width])


@compiled
def walk_contributions(
    x: Rows, trees: Vertices, chosen: Ints, model: Ints, target: Ints, weights: Reals, out: Reals
) -> None:
    """Add the contributions of some trees, computed row by row, to ``out`` [K, n, G].

    Args:
        x: Rows [n, F].
        trees: All trees.
        chosen: int64 [m], trees to explain.
        model: int64 [m], model of each.
        target: int64 [F], column of ``out`` that a feature belongs to.
        weights: ``shapley_weights`` of the deepest path.
        out: Changed in place.
    """
    for i in range(len(chosen)):
        t = chosen[i]
        first, m = trees.nodes[t], trees.nodes[t + 1] - trees.nodes[t]
        distinct = trees.distinct[trees.features[t] : trees.features[t + 1]]
        right = np.empty(m, np.bool_)
        values = np.empty(len(distinct))
        for r in range(len(x)):
            for k in range(m):
                right[k] = _goes_right(x[r, trees.feature[first + k]], trees, first + k)
            values[:] = 0.0
            _add_paths(trees, t, right, weights, values)
            for d in range(len(distinct)):
                out[model[i], r, target[distinct[d]]] += values[d]


@compiled
def walk_scores(x: Rows, trees: Vertices, chosen: Ints, out: Reals) -> None:
    """Add the leaves of some trees to ``out`` [n], tree by tree."""
    for i in range(len(chosen)):
        t = chosen[i]
        first = trees.nodes[t]
        for r in range(len(x)):
            child = 0 if trees.nodes[t + 1] > first else -1
            while child >= 0:
                node = first + child
                right = _goes_right(x[r, trees.feature[node]], trees, node)
                child = trees.right[node] if right else trees.left[node]
            out[r] += trees.value[first + t - child - 1]


@compiled
def turns(x: Rows, trees: Vertices, chosen: Ints) -> Flags:
    """Return where rows go at every node of some trees, True for right, bool [n, nodes]."""
    width = 0
    for t in chosen:
        width += trees.nodes[t + 1] - trees.nodes[t]
    right = np.empty((len(x), width), np.bool_)
    for r in range(len(x)):
        k = 0
        for t in chosen:
            for node in range(trees.nodes[t], trees.nodes[t + 1]):
                right[r, k] = _goes_right(x[r, trees.feature[node]], trees, node)
                k += 1
    return right


@compiled
def _goes_right(value: float, trees: Vertices, node: int) -> bool:
    missing = trees.missing[node]
    is_nan = np.isnan(value)
    exact = 0.0 if is_nan or abs(value) <= ZERO else np.float64(value)
    if (is_nan and missing == MISSING_NAN) or (exact == 0.0 and missing == MISSING_ZERO):
        return not trees.default_left[node]
    return not exact <= trees.threshold[node]


@compiled
def _add_paths(trees: Vertices, t: int, right: Flags, weights: Reals, values: Reals) -> None:
    """Add the contributions of tree ``t`` when its nodes pass the row on as ``right`` says."""
    m = len(right)
    vertex, leaves = 2 * trees.nodes[t] + t, trees.nodes[t] + t
    share, passes = np.empty(len(values)), np.empty(len(values), np.bool_)
    on_path = np.empty(len(values), np.bool_)
    product = np.empty(len(values) + 1)
    for leaf in range(m + 1):
        share[:], passes[:], on_path[:] = 1.0, True, False
        child = m + leaf
        while trees.parent[vertex + child] >= 0:
            node = trees.parent[vertex + child]
            d = trees.local[trees.nodes[t] + node]
            on_path[d] = True
            share[d] *= trees.share[vertex + child]
            passes[d] &= right[node] == trees.is_right[vertex + child]
            child = node
        _add_leaf(trees.value[leaves + leaf], share, passes, on_path, weights, product, values)


@compiled
def _add_leaf(
    value: float,
    share: Reals,
    passes: Flags,
    on_path: Flags,
    weights: Reals,
    product: Reals,
    values: Reals,
) -> None:
    """Add one leaf's values; ``product`` is room for the coefficients of y^0, y^1, ..."""
    n, degree, scale = 0, 0, value
    product[0] = 1.0
    for d in range(len(share)):
        if not on_path[d]:
            continue
        n += 1
        if not passes[d]:
            scale *= share[d]
            continue
        product[degree + 1] = product[degree]
        for k in range(degree, 0, -1):
            product[k] = product[k] * share[d] + product[k - 1]
        product[0] *= share[d]
        degree += 1
    if n == 0:
        return
    absent = 0.0
    if degree < n:
        for k in range(degree + 1):
            absent -= weights[n, k] * product[k]
    for d in range(len(share)):
        if not on_path[d]:
            continue
        if not passes[d]:
            values[d] += scale * absent
            continue
        coefficient, total = product[degree], 0.0
        for k in range(degree - 1, -1, -1):
            total += weights[n, k] * coefficient
            coefficient = product[k] - share[d] * coefficient
        values[d] += scale * (1.0 - share[d]) * total


def shapley_weights(deepest: int) -> Reals:
    """Return ``k! (n - 1 - k)! / n!`` for n up to ``deepest`` (row) and k < n (column)."""
    weights = np.zeros((deepest + 1, max(deepest, 1)))
    for n in range(1, deepest + 1):
        weights[n, 0] = 1.0 / n
        for k in range(1, n):
            weights[n, k] = weights[n, k - 1] * k / (n - k)
    return weights
