"""What a forest means, in plain Python: slow, and the truth for the compiled code.

A contribution is a Shapley value by its definition: the features of a tree are the players. What a
set of known features is worth is, path-dependent, the mean of the leaves that a row reaches when
every test of an unknown feature is passed both ways, weighted by training rows; interventional, the
mean output over background rows when each of them takes the known features from the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.forest.trees import MISSING_NAN, MISSING_ZERO, ZERO, Tree

Reals = NDArray[np.float64]


def score_reference(models: Sequence[Sequence[Tree]], x: NDArray[Any]) -> Reals:
    """Return the sum over all trees, float64 [n]."""
    return np.array([sum(_worth(t, row, None) for m in models for t in m) for row in x])


def contributions_reference(models: Sequence[Sequence[Tree]], x: NDArray[Any]) -> Reals:
    """Return float64 [K, n, F], by the sum over all sets of features of every tree."""
    out = np.zeros((len(models), *x.shape))
    for k, model in enumerate(models):
        for tree in model:
            for r, row in enumerate(x):
                _add_shapley(tree, partial(_worth, tree, row), out[k, r])
    return out


def interventional_reference(
    models: Sequence[Sequence[Tree]], x: NDArray[Any], background: NDArray[Any]
) -> Reals:
    """Return float64 [K, n, F], by the sum over all sets of features and all background rows."""
    out = np.zeros((len(models), *x.shape))
    for k, model in enumerate(models):
        for tree in model:
            for r, row in enumerate(x):
                _add_shapley(tree, partial(_worth_against, tree, row, background), out[k, r])
    return out


def goes_right(tree: Tree, node: int, value: float) -> bool:
    """Tell which way a value goes."""
    missing = tree.missing[node]
    exact = 0.0 if math.isnan(value) or abs(value) <= ZERO else value
    if (missing == MISSING_NAN and math.isnan(value)) or (missing == MISSING_ZERO and exact == 0):
        return not tree.default_left[node]
    return not exact <= tree.threshold[node]


def _add_shapley(tree: Tree, worth: Callable[[set[int]], float], values: Reals) -> None:
    players = sorted(set(tree.feature.tolist()))
    n = len(players)
    for player in players:
        others = [p for p in players if p != player]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - 1 - size) / math.factorial(n)
            for known in combinations(others, size):
                values[player] += weight * (worth({*known, player}) - worth({*known}))


def _worth_against(
    tree: Tree, row: NDArray[Any], background: NDArray[Any], known: set[int]
) -> float:
    """Return the mean output over background rows that take the ``known`` features from a row."""
    mixed = np.array(background)
    mixed[:, sorted(known)] = row[sorted(known)]
    return sum(_worth(tree, own, None) for own in mixed) / len(mixed)


def _worth(tree: Tree, row: NDArray[Any], known: set[int] | None) -> float:
    """Return the mean output with only the ``known`` features known (None: all)."""

    def below(child: int) -> float:
        if child < 0:
            return float(tree.value[~child])
        feature = int(tree.feature[child])
        children = int(tree.left[child]), int(tree.right[child])
        if known is None or feature in known:
            return below(children[goes_right(tree, child, float(row[feature]))])
        counts = [float(tree.count[c] if c >= 0 else tree.leaf_count[~c]) for c in children]
        parts = [count * below(c) for count, c in zip(counts, children, strict=True)]
        return sum(parts) / float(tree.count[child])

    return below(0 if len(tree.feature) else -1)
