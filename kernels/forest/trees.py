"""A binary decision tree as plain arrays, checked once so that the compiled code need not.

Nodes are numbered from 0 (the root), leaves from 0 as well. A child is a node number, or ``~leaf``
(that is ``-leaf - 1``) for a leaf, as in LightGBM. A row goes left where ``value <= threshold``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2
"""How a node takes missing values: it knows none and reads NaN as 0; 0 and NaN are missing; NaN
is missing. A missing value goes where ``default_left`` says."""

ZERO = float(np.float32(1e-35))
"""Values at most this far from 0 count as 0, in every node (LightGBM's ``kZeroThreshold``)."""

_KINDS: Mapping[str, type[Any]] = {
    "feature": np.int32,
    "threshold": np.float64,
    "left": np.int32,
    "right": np.int32,
    "missing": np.int8,
    "default_left": np.bool_,
    "count": np.float64,
    "value": np.float64,
    "leaf_count": np.float64,
}


class ForestError(ValueError):
    """Trees that cannot be compiled, or rows that do not fit them; the message names the fix."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree with m nodes and m + 1 leaves; m may be 0.

    Attributes:
        feature: int32 [m], feature that a node tests.
        threshold: float64 [m], not NaN.
        left: int32 [m], child for ``value <= threshold``.
        right: int32 [m], the other child.
        missing: int8 [m], one of ``MISSING_NONE``, ``MISSING_ZERO``, ``MISSING_NAN``.
        default_left: bool [m], where missing values go.
        count: float64 [m], training rows that came to the node, > 0.
        value: float64 [m + 1], output of a leaf, finite.
        leaf_count: float64 [m + 1], training rows that came to the leaf, > 0.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing: NDArray[np.int8]
    default_left: NDArray[np.bool_]
    count: NDArray[np.float64]
    value: NDArray[np.float64]
    leaf_count: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Bring the arrays to their types and refuse what is no tree."""
        for name, kind in _KINDS.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
        m = len(self.feature)
        for field in fields(self):
            wanted = m + 1 if field.name in {"value", "leaf_count"} else m
            found = getattr(self, field.name).shape
            if found != (wanted,):
                raise ForestError(f"tree array {field.name} has shape {found}, wanted ({wanted},)")
        if np.isnan(self.threshold).any() or not np.isfinite(self.value).all():
            raise ForestError("a tree holds a NaN threshold or a leaf that is not finite")
        if not (np.concatenate([self.count, self.leaf_count]) > 0).all():
            raise ForestError("a tree has nodes without training rows; its counts must be positive")
        if m and (self.feature.min() < 0 or not np.isin(self.missing, (0, 1, 2)).all()):
            raise ForestError("a tree tests a negative feature or knows a missing type not in 0..2")
        self._check_shape()

    def _check_shape(self) -> None:
        """Refuse children that are not each the child of exactly one earlier node."""
        m = len(self.feature)
        children = np.concatenate([self.left, self.right])
        expected = np.concatenate([np.arange(1, m), ~np.arange(m + 1)]) if m else children[:0]
        if not np.array_equal(np.sort(children), np.sort(expected)):
            raise ForestError("the children of a tree do not reach every node and leaf once")
        parent = np.tile(np.arange(m), 2)
        if (parent >= children)[children >= 0].any():
            raise ForestError(
                "a tree has a child numbered before its parent; renumber from the root"
            )

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return len(self.value)

    @property
    def mean(self) -> float:
        """Mean output over the training rows: what is known before any feature is."""
        total = self.count[0] if len(self.count) else self.leaf_count[0]
        return float(np.sum(self.leaf_count / total * self.value))
