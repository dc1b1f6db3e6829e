"""Trees as the arrays that compiled code reads.

Every tree becomes a list of distinct comparisons ``value > threshold`` of columns. A column is a
feature read in one way of missing values: NaN and zero are replaced when a row is read, so that
afterwards every node of every tree is the same kind of comparison.

A comparison carries two numbers. ``mask`` keeps the leaves that a row can still reach when the
comparison holds (QuickScorer, Lucchese et al. 2015): the lowest bit left is the row's leaf.
``stride`` counts: over a tree's columns, how many of the sorted thresholds a row exceeds are the
digits of one number, the tree's *state*, which decides every comparison and so everything that a
tree can say about a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forest.trees import MISSING_NONE, MISSING_ZERO, Tree

MASK_LEAVES = 32
"""Leaves that a mask has bits for; larger trees are walked node by node."""

READ_AS_ZERO, READ_AS_LEFT, READ_AS_RIGHT = 0, 1, 2
"""What a missing value becomes: 0, or -inf to go left everywhere, or NaN to go right."""

LANES = 8
"""Trees are summed in eight interleaved sums, the same for one row as for many."""

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


class Vertices(NamedTuple):
    """Nodes and leaves of T trees one after another, for what follows paths.

    Attributes:
        nodes: int64 [T + 1], first node of every tree.
        features: int64 [T + 1], first distinct feature of every tree.
        feature: int32 [N], threshold: float64 [N], left, right: int32 [N], missing: int8 [N],
            default_left: bool [N]: as in ``Tree``.
        local: int32 [N], position of the node's feature among those of its tree.
        distinct: int32 [D], distinct features, tree by tree.
        parent: int32 [N + T + N], parent of every vertex (nodes, then leaves, tree by tree).
        is_right: bool, same axis, whether it is the right child.
        share: float64, same axis, part of the parent's training rows that came to it.
        value: float64 [N + T], outputs of the leaves.
        rank, stride, states: int64 [N], the node is passed to the right in state s of its tree
            when ``s // stride % states > rank``.
    """

    nodes: Ints
    features: Ints
    feature: NDArray[np.int32]
    threshold: Reals
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing: NDArray[np.int8]
    default_left: NDArray[np.bool_]
    local: NDArray[np.int32]
    distinct: NDArray[np.int32]
    parent: NDArray[np.int32]
    is_right: NDArray[np.bool_]
    share: Reals
    value: Reals
    rank: Ints
    stride: Ints
    states: Ints


@dataclass(frozen=True, slots=True)
class Layout:
    """A compiled forest of T trees.

    P of them (rounded up to a multiple of ``LANES`` by empty ones) have masks, in S slots for
    comparisons. The arrays are few, because each costs a call 100 ns.

    Attributes:
        columns: uint32 [3, C]: feature, what NaN becomes, what values close to 0 become
            (``READ_AS``).
        words: uint32 [3, S, P]: column, mask (leaves that stay within reach when the comparison
            holds) and stride (what it then adds to the state). Unused slots change nothing.
        single: float32 [S, P], thresholds for float32 rows.
        double: float64 [S, P], thresholds for float64 rows.
        used: int64 [P], slots in use.
        leaf: float64 [P, L], outputs of the leaves from left to right.
        masked: int64 [<= P], numbers of the trees with masks.
        walked: int64, numbers of the others.
        states: float64 [T], number of states of every tree; never below it.
        vertices: All trees node by node.
    """

    columns: Words
    words: Words
    single: NDArray[np.float32]
    double: Reals
    used: Ints
    leaf: Reals
    masked: Ints
    walked: Ints
    states: Reals
    vertices: Vertices


@dataclass(frozen=True, slots=True)
class _Parts:
    """One tree on its way: per node its column, rank, stride and number of states."""

    tree: Tree
    column: Ints
    rank: Ints
    stride: Ints
    size: Ints
    states: float


def build_layout(trees: Sequence[Tree]) -> Layout:
    """Compile trees; see ``Layout``."""
    keys: dict[tuple[int, int, bool], int] = {}
    parts = [_parts(tree, keys) for tree in trees]
    small = np.array([t.leaves <= MASK_LEAVES for t in trees], dtype=np.bool_)
    masked, walked = np.flatnonzero(small), np.flatnonzero(~small)
    words, double, used, leaf = _comparisons([parts[i] for i in masked])
    return Layout(
        columns=_columns(list(keys)),
        words=words,
        single=round_down(double),
        double=double,
        used=used,
        leaf=leaf,
        masked=masked.astype(np.int64),
        walked=walked.astype(np.int64),
        states=np.array([p.states for p in parts]),
        vertices=_vertices(parts),
    )


def round_down(threshold: Reals) -> NDArray[np.float32]:
    """Return the largest float32 not above each threshold.

    For every float32 value, ``value <= threshold`` then holds exactly when it did before.
    """
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
        above = rounded.astype(np.float64) > threshold
        return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _columns(keys: Sequence[tuple[int, int, bool]]) -> Words:
    columns = np.zeros((3, len(keys)), np.uint32)
    for c, (feature, missing, left) in enumerate(keys):
        default = READ_AS_LEFT if left else READ_AS_RIGHT
        columns[0, c] = feature
        columns[1, c] = READ_AS_ZERO if missing == MISSING_NONE else default
        columns[2, c] = default if missing == MISSING_ZERO else READ_AS_ZERO
    return columns


def readings(tree: Tree) -> list[tuple[int, int, bool]]:
    """Return (feature, missing type, default left) per node: equal ones read the same column."""
    missing = tree.missing.tolist()
    left = [bool(d) and m != MISSING_NONE for d, m in zip(tree.default_left, missing, strict=True)]
    return list(zip(tree.feature.tolist(), missing, left, strict=True))


def _parts(tree: Tree, keys: dict[tuple[int, int, bool], int]) -> _Parts:
    column = [keys.setdefault(key, len(keys)) for key in readings(tree)]
    threshold = tree.threshold.tolist()
    steps: dict[int, list[float]] = {}
    for c, t in sorted(set(zip(column, threshold, strict=True))):
        steps.setdefault(c, []).append(t)
    strides, states = {}, 1
    for c, found in steps.items():
        strides[c] = states
        states *= len(found) + 1
    known = states < 2**32  # else the strides have no meaning and are not used
    return _Parts(
        tree,
        np.array(column, np.int64),
        np.array([steps[c].index(t) for c, t in zip(column, threshold, strict=True)], np.int64),
        np.array([strides[c] if known else 0 for c in column], np.int64),
        np.array([len(steps[c]) + 1 for c in column], np.int64),
        float(states),
    )


def _comparisons(parts: Sequence[_Parts]) -> tuple[Words, Reals, Ints, Reals]:
    """Return words, thresholds, slots in use and leaves, see ``Layout``."""
    found = [_distinct(p) for p in parts]
    trees = -(-len(parts) // LANES) * LANES
    slots = max((len(f) for f in found), default=0)
    leaves = max((p.tree.leaves for p in parts), default=1)
    words = np.zeros((3, slots, trees), np.uint32)
    words[1] = 2**32 - 1
    threshold = np.full((slots, trees), np.inf)
    used = np.zeros(trees, np.int64)
    leaf = np.zeros((trees, leaves))
    for t, (part, comparisons) in enumerate(zip(parts, found, strict=True)):
        used[t] = len(comparisons)
        for s, (column, value, mask, stride) in enumerate(comparisons):
            words[:, s, t] = column, mask, stride
            threshold[s, t] = value
        leaf[t, : part.tree.leaves] = part.tree.value[left_to_right(part.tree)]
    return words, threshold, used, leaf


def _distinct(part: _Parts) -> list[tuple[int, float, int, int]]:
    """Return (column, threshold, mask, stride) of the distinct comparisons of a tree."""
    masks = _masks(part.tree)
    merged: dict[tuple[int, float], tuple[int, int]] = {}
    for node, mask in enumerate(masks):
        key = int(part.column[node]), float(part.tree.threshold[node])
        before, _ = merged.get(key, (2**32 - 1, 0))
        merged[key] = before & mask, int(part.stride[node])
    return [(c, t, mask, stride) for (c, t), (mask, stride) in sorted(merged.items())]


def _masks(tree: Tree) -> list[int]:
    """Return per node the bits of all leaves but those of its left subtree."""
    place = np.argsort(left_to_right(tree))
    below = [0] * len(tree.feature)

    def bits(child: int) -> int:
        return below[child] if child >= 0 else 1 << int(place[~child])

    masks = [0] * len(below)
    for node in reversed(range(len(below))):  # children are numbered after their parents
        left, right = bits(int(tree.left[node])), bits(int(tree.right[node]))
        below[node] = left | right
        masks[node] = (2**32 - 1) & ~left
    return masks


def left_to_right(tree: Tree) -> list[int]:
    """Return the numbers of the leaves from left to right."""
    order: list[int] = []
    waiting = [0 if len(tree.feature) else -1]
    while waiting:
        child = waiting.pop()
        if child < 0:
            order.append(~child)
        else:
            waiting += [int(tree.right[child]), int(tree.left[child])]
    return order


def _vertices(parts: Sequence[_Parts]) -> Vertices:
    trees = [p.tree for p in parts]
    distinct, local = [], []
    for tree in trees:
        features, places = np.unique(tree.feature, return_inverse=True)
        distinct.append(features.astype(np.int32))
        local.append(places.astype(np.int32))
    families = [_family(tree) for tree in trees]
    return Vertices(
        nodes=_starts([len(t.feature) for t in trees]),
        features=_starts([len(d) for d in distinct]),
        feature=_join([t.feature for t in trees], np.int32),
        threshold=_join([t.threshold for t in trees], np.float64),
        left=_join([t.left for t in trees], np.int32),
        right=_join([t.right for t in trees], np.int32),
        missing=_join([t.missing for t in trees], np.int8),
        default_left=_join([t.default_left for t in trees], np.bool_),
        local=_join(local, np.int32),
        distinct=_join(distinct, np.int32),
        parent=_join([f[0] for f in families], np.int32),
        is_right=_join([f[1] for f in families], np.bool_),
        share=_join([f[2] for f in families], np.float64),
        value=_join([t.value for t in trees], np.float64),
        rank=_join([p.rank for p in parts], np.int64),
        stride=_join([p.stride for p in parts], np.int64),
        states=_join([p.size for p in parts], np.int64),
    )


def _family(tree: Tree) -> tuple[NDArray[np.int32], NDArray[np.bool_], Reals]:
    """Return parent, side and share of the parent's rows, for nodes and then leaves."""
    m = len(tree.feature)
    parent = np.full(2 * m + 1, -1, np.int32)
    is_right = np.zeros(2 * m + 1, np.bool_)
    count = np.concatenate([tree.count, tree.leaf_count])
    for children, side in ((tree.left, False), (tree.right, True)):
        vertex = np.where(children >= 0, children, m + ~children)
        parent[vertex] = np.arange(m)
        is_right[vertex] = side
    share = np.where(parent >= 0, count / count[np.maximum(parent, 0)], 1.0)
    return parent, is_right, share


def _starts(lengths: Sequence[int]) -> Ints:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _join(arrays: Sequence[NDArray[Any]], kind: type[Any]) -> NDArray[Any]:
    joined: NDArray[Any] = np.concatenate([*arrays, np.zeros(0, kind)]).astype(kind)
    return joined
