"""Boosted trees scored encrypted exactly: their splits are told, what their leaves say is not.

A sum of trees is linear in its leaves: the output is the sum of the values of the leaves that a row
ends in. Which leaves those are is for the owner to say, by the trees' splits, which are published;
the values are weights of a linear model (`tasks.privacy.model`), and a linear model is what
encrypted scoring does best. Nothing is lost but rounding.

Where splits must not be told either, distil (`tasks.privacy.distil`): single thresholds are told
then, and some of the ranking is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.forest.trees import MISSING_ZERO, ZERO, Tree
from tasks.privacy.encoding import Encoding, Rule
from tasks.privacy.model import ModelError, PrivateModel, linear_model
from tasks.privacy.readout import Readout

Split = tuple[int, float]
Path = tuple[tuple[Split, bool], ...]


def tree_model(
    trees: Sequence[Tree],
    columns: Sequence[str],
    *,
    models: int = 1,
    readout: Readout | None = None,
) -> PrivateModel:
    """Return a linear model over the leaves of trees, equal to their sum.

    Rows must be finite: where a tree would send a missing value does not matter.

    Args:
        trees: Of all models (`kernels.forest.read_model` reads LightGBM's).
        columns: Names of the columns that the trees read; those that none reads are left out.
        models: Number of models whose mean is the score.
        readout: What the score means; default log-odds.

    Raises:
        ModelError: When the trees split nothing or at infinity, or take 0 for a missing value.

    Example:
        >>> import numpy as np
        >>> from kernels.forest import Tree
        >>> stump = Tree([0], [1.5], [-1], [-2], [0], [False], [4], [-1.0, 1.0], [2, 2])
        >>> tree_model([stump], ["amount"]).score(np.array([[1.0], [2.0]])).tolist()
        [[-1.0], [1.0]]
    """
    if not all(np.isfinite(tree.threshold).all() for tree in trees):
        raise ModelError("a tree splits at infinity, which decides nothing; prune such nodes")
    if any((tree.missing == MISSING_ZERO).any() for tree in trees):
        raise ModelError("the trees take 0 for a missing value; train with zero_as_missing=false")
    offset = 0.0
    values: dict[Path, float] = {}
    for tree in trees:
        # A row ends in one leaf of a tree, so one of them can be the rule and need no input.
        usual = int(np.argmax(tree.leaf_count))
        offset += float(tree.value[usual])
        for leaf, path in _paths(tree):
            if leaf != usual:
                told = float(tree.value[leaf] - tree.value[usual])
                values[path] = values.get(path, 0.0) + told
    if not values:
        raise ModelError("the trees split nothing: the model is a constant")
    encoding = _encoding(list(values), columns)
    weights = np.zeros(encoding.inputs)
    weights[len(encoding.columns) :] = list(values.values())
    return linear_model(encoding, weights / models, offset / models, readout)


def _paths(tree: Tree) -> Iterator[tuple[int, Path]]:
    """Yield each leaf with the distinct splits above it, in one order."""
    waiting: list[tuple[int, dict[Split, bool]]] = [(0, {})] if len(tree.feature) else []
    while waiting:
        node, above = waiting.pop()
        split = int(tree.feature[node]), _limit(float(tree.threshold[node]))
        for child, yes in ((int(tree.left[node]), False), (int(tree.right[node]), True)):
            if above.get(split, yes) != yes:
                continue  # no row gets there
            path = above | {split: yes}
            if child >= 0:
                waiting.append((child, path))
            else:
                yield ~child, tuple(sorted(path.items()))


def _limit(threshold: float) -> float:
    """Return the threshold for values as they are; trees take those next to 0 for 0."""
    if abs(threshold) > ZERO:
        return threshold
    return ZERO if threshold >= 0 else math.nextafter(-ZERO, -math.inf)


def _encoding(paths: Sequence[Path], columns: Sequence[str]) -> Encoding:
    splits = sorted({split for path in paths for split, _ in path})
    places = sorted({feature for feature, _ in splits})
    numbers = {split: number for number, split in enumerate(splits)}
    rules: list[Rule] = [tuple((numbers[split], yes) for split, yes in path) for path in paths]
    ones: NDArray[np.float64] = np.ones(len(places))
    return Encoding(
        tuple(columns[place] for place in places),
        np.zeros(len(places)),
        ones,
        ones,
        beyond="clip",
        steps=tuple((places.index(feature), limit) for feature, limit in splits),
        rules=tuple(rules),
    )
