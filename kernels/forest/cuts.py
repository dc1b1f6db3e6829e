"""Cuts a large tree into smaller ones whose sum it is, so that each of them has few states.

A piece keeps some neighbouring leaves and the nodes above them; everything else becomes leaves of
output 0. Both the score and every Shapley value are sums over leaves, so the pieces of a tree add
up to the tree in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.forest.layout import MASK_LEAVES, left_to_right, readings
from kernels.forest.trees import Tree

Comparison = tuple[tuple[int, int, bool], float]
"""A column, as (feature, missing type, default left), and a threshold."""


def cut(tree: Tree, most_states: int) -> list[Tree]:
    """Return as few pieces as neighbouring leaves allow.

    Args:
        tree: The tree.
        most_states: A piece of two leaves or more has at most so many states. One leaf alone may
            have more.
    """
    comparison = list(zip(readings(tree), tree.threshold.tolist(), strict=True))
    above = _above(tree)
    groups: list[list[int]] = []
    nodes: set[int] = set()
    for leaf in left_to_right(tree):
        wider = nodes | above[leaf]
        if groups and _fits([comparison[node] for node in wider], most_states):
            groups[-1].append(leaf)
            nodes = wider
        else:
            groups.append([leaf])
            nodes = above[leaf]
    if len(groups) == 1:
        return [tree]
    return [_piece(tree, group, set().union(*(above[leaf] for leaf in group))) for group in groups]


def _above(tree: Tree) -> list[set[int]]:
    """Return the nodes above every leaf."""
    nodes: list[set[int]] = [set() for _ in tree.feature]
    leaves: list[set[int]] = [set() for _ in tree.value]
    for node, own in enumerate(nodes):  # children are numbered after their parents
        for child in (int(tree.left[node]), int(tree.right[node])):
            if child >= 0:
                nodes[child] = own | {node}
            else:
                leaves[~child] = own | {node}
    return leaves


def _fits(comparisons: Sequence[Comparison], most_states: int) -> bool:
    thresholds: dict[tuple[int, int, bool], set[float]] = {}
    for column, threshold in comparisons:
        thresholds.setdefault(column, set()).add(threshold)
    states = 1
    for found in thresholds.values():
        states *= len(found) + 1
    return states <= most_states and len(comparisons) < MASK_LEAVES


def _piece(tree: Tree, leaves: Sequence[int], nodes: set[int]) -> Tree:
    kept = sorted(nodes)
    number = {node: i for i, node in enumerate(kept)}
    value: list[float] = []
    count: list[float] = []

    def renumbered(child: int) -> int:
        if child in number:
            return number[child]
        value.append(float(tree.value[~child]) if child < 0 and ~child in leaves else 0.0)
        count.append(float(tree.count[child] if child >= 0 else tree.leaf_count[~child]))
        return -len(value)

    left = [renumbered(int(tree.left[node])) for node in kept]
    right = [renumbered(int(tree.right[node])) for node in kept]
    return Tree(
        feature=tree.feature[kept],
        threshold=tree.threshold[kept],
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        missing=tree.missing[kept],
        default_left=tree.default_left[kept],
        count=tree.count[kept],
        value=np.array(value),
        leaf_count=np.array(count),
    )
