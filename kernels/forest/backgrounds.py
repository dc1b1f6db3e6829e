"""Exact interventional SHAP values of trees against background rows.

With the features in S known, a row takes its own values there and those of a background row
elsewhere, and is worth the mean over background rows. A leaf of output ``v`` is then reached when
the row passes the leaf's tests of the features in S, and the background row those of the rest. Let
the row alone pass at ``a`` features and the background row alone at ``b``. If neither passes at
some feature the leaf tells nothing; else the Shapley values of this game (Lundberg et al. 2020;
Laberge and Pequignot 2022) are

    + v (a - 1)! b! / (a + b)!   for the a features,    - v a! (b - 1)! / (a + b)!   for the b.

A background row enters by the set of features at which it passes alone. So equal sets are counted
once, before any row is known, and the values of each set of a row are tabulated from the counts:
a row costs the same whatever the number of background rows (as in Woodelf, Nadel and Wettenstein
2025). A set is a word with one bit for each distinct feature of the path.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.forest.layout import Vertices
from kernels.jit import compiled, compiled_beside

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]

WORD_FEATURES = 62
"""Most distinct features on a path: sets of them are signed words."""


class Sets(NamedTuple):
    """Sets of features at which background rows pass, leaf by leaf.

    Attributes:
        starts: int64 [leaves + 1], first set of every leaf.
        words: int64, the distinct sets.
        shares: float64 [L, sets], added weights of the background rows in each, by layer.
    """

    starts: Ints
    words: Ints
    shares: Reals


# As in cpu.py, functions that call each other share a file because of numba's cache.


@compiled_beside  # a model is loaded while another answers
def fill_table(
    right: Flags,
    trees: Vertices,
    t: int,
    states: int,
    weights: Reals,
    share: Reals,
    step: int,
    table: Reals,
) -> None:
    """Write the contributions of every state of tree ``t``.

    Args:
        right: bool [m, nodes of the tree], where the background rows go.
        trees: All trees.
        t: A tree; no path of it may have many features, as 3^features terms are added up.
        states: Its states.
        weights: ``paths.shapley_weights`` of the deepest path.
        share: float64 [L, m], weights of the background rows; each layer of the table has its own.
        step: Entries from one state to the next.
        table: float64 [states * step], zeros; filled in place. A state has L times as many entries
            as the tree has distinct features, layer by layer.
    """
    first, m = trees.nodes[t], trees.nodes[t + 1] - trees.nodes[t]
    leaves = trees.nodes[t] + t
    passes = np.empty((1, m), np.bool_)
    word = np.empty(1, np.int64)
    for leaf in range(m + 1):
        value = trees.value[leaves + leaf]
        if value == 0.0:
            continue
        place, features = path_features(trees, t, leaf)
        words = np.empty(len(right), np.int64)
        pack(right, trees, t, leaf, place, words)
        values = np.empty((len(share), 1 << len(features), len(features)))
        for layer in range(len(share)):
            values[layer] = _leaf_values(words, share[layer], len(features), weights)
        for state in range(states):
            for k in range(m):
                digit = state // trees.stride[first + k] % trees.states[first + k]
                passes[0, k] = digit > trees.rank[first + k]
            pack(passes, trees, t, leaf, place, word)
            for layer in range(len(share)):
                at = state * step + layer * len(place)
                for i in range(len(features)):
                    table[at + features[i]] += value * values[layer, word[0], i]


@compiled
def walk_contributions(
    right: Flags,
    begin: int,
    trees: Vertices,
    chosen: Ints,
    model: Ints,
    target: Ints,
    sets: Sets,
    layer: int,
    weights: Reals,
    out: Reals,
) -> None:
    """Add the contributions of some trees, leaf by leaf and set by set, to ``out`` [K, n, G].

    Args:
        right: bool [b, nodes of the chosen trees], where some of the rows go.
        begin: Place of the first of them in ``out``.
        trees: All trees.
        chosen: int64 [c], trees to explain.
        model: int64 [c], model of each.
        target: int64 [F], column of ``out`` that a feature belongs to.
        sets: Of the background rows at the leaves of the chosen trees.
        layer: Which weights of the background rows are meant.
        weights: ``paths.shapley_weights`` of the deepest path.
        out: Changed in place.
    """
    node, number = 0, 0
    own = np.empty(len(right), np.int64)
    for c in range(len(chosen)):
        t = chosen[c]
        m = trees.nodes[t + 1] - trees.nodes[t]
        distinct = trees.distinct[trees.features[t] : trees.features[t + 1]]
        for leaf in range(m + 1):
            first, last = sets.starts[number], sets.starts[number + 1]
            number += 1
            value = trees.value[trees.nodes[t] + t + leaf]
            if value == 0.0:
                continue
            place, features = path_features(trees, t, leaf)
            pack(right[:, node : node + m], trees, t, leaf, place, own)
            found = np.empty(len(features))
            for r in range(len(right)):
                found[:] = 0.0
                for s in range(first, last):
                    _add_pair(own[r], sets.words[s], sets.shares[layer, s], weights, found)
                for i in range(len(features)):
                    out[model[c], begin + r, target[distinct[features[i]]]] += value * found[i]
        node += m


@compiled
def path_features(trees: Vertices, t: int, leaf: int) -> tuple[Ints, Ints]:
    """Return the bit of every distinct feature of a tree (-1: not on the path), and the reverse."""
    vertex, m = 2 * trees.nodes[t] + t, trees.nodes[t + 1] - trees.nodes[t]
    place = np.full(trees.features[t + 1] - trees.features[t], -1)
    features = np.empty(len(place), np.int64)
    n = 0
    node = trees.parent[vertex + m + leaf]
    while node >= 0:
        d = trees.local[trees.nodes[t] + node]
        if place[d] < 0:
            place[d] = n
            features[n] = d
            n += 1
        node = trees.parent[vertex + node]
    return place, features[:n]


@compiled
def pack(right: Flags, trees: Vertices, t: int, leaf: int, place: Ints, words: Ints) -> None:
    """Write the set of features at which each row passes the tests above a leaf.

    Args:
        right: bool [n, nodes of the tree], where the rows go.
        trees: All trees.
        t: A tree.
        leaf: A leaf of it.
        place: From ``path_features``.
        words: int64 [n], filled in place.
    """
    vertex, m = 2 * trees.nodes[t] + t, trees.nodes[t + 1] - trees.nodes[t]
    words[:] = (1 << (place.max() + 1)) - 1 if len(place) else 0
    child = m + leaf
    while trees.parent[vertex + child] >= 0:
        node = trees.parent[vertex + child]
        lost = ~(1 << place[trees.local[trees.nodes[t] + node]])
        side = trees.is_right[vertex + child]
        for r in range(len(words)):
            if right[r, node] != side:
                words[r] &= lost
        child = node


@compiled
def _leaf_values(words: Ints, part: Reals, n: int, weights: Reals) -> Reals:
    """Return the values of a leaf of output 1 for every set of a row, float64 [2^n, n].

    Args:
        words: Sets of the background rows.
        part: Weights of these rows, of any sign.
        n: Distinct features of the path.
        weights: ``paths.shapley_weights``.
    """
    sets = 1 << n
    share, size = np.zeros(sets), np.zeros(sets, np.int64)
    for r in range(len(words)):
        share[words[r]] += part[r]
    for word in range(1, sets):
        size[word] = size[word >> 1] + (word & 1)
    values = np.zeros((sets, n))
    for own in range(sets):
        needed = sets - 1 - own  # where the row does not pass, the background row must
        b, absent = size[needed], 0.0
        both = own
        while True:  # over the subsets of ``own`` at which the background row passes, too
            found = share[needed | both]
            alone = own ^ both
            a = size[alone]
            if found != 0.0 and a + b > 0:
                if b > 0:
                    absent += found * weights[a + b, a]
                for i in range(n):
                    if alone >> i & 1:
                        values[own, i] += found * weights[a + b, a - 1]
            if both == 0:
                break
            both = (both - 1) & own
        for i in range(n):
            if needed >> i & 1:
                values[own, i] = -absent
    return values


@compiled
def _add_pair(own: int, other: int, share: float, weights: Reals, values: Reals) -> None:
    """Add the values of a leaf of output 1 for a row and a part of the background."""
    a, b = 0, 0
    for i in range(len(values)):
        mine, theirs = own >> i & 1, other >> i & 1
        if mine + theirs == 0:
            return
        a += mine & ~theirs
        b += theirs & ~mine
    for i in range(len(values)):
        mine, theirs = own >> i & 1, other >> i & 1
        if mine > theirs:
            values[i] += share * weights[a + b, a - 1]
        elif theirs > mine:
            values[i] -= share * weights[a + b, a]
