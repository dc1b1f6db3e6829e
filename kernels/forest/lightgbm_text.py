"""Reads LightGBM's own text format (``Booster.model_to_string``) without LightGBM.

The format is a header of ``key=value`` lines and one block of such lines per tree. Read are
single-output models of numeric splits with constant leaves; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.forest.trees import ForestError, Tree

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
"""Bits of a node's ``decision_type``; the two bits above them hold the missing type."""


def read_model(text: str) -> tuple[tuple[Tree, ...], int]:
    """Return the trees of a model and its number of features.

    Raises:
        ForestError: When the text is no such model, or one of a kind that is not read.
    """
    sections = text.split("\nTree=")
    head = _pairs(sections[0])
    if not text.startswith("tree") or "max_feature_idx" not in head:
        raise ForestError("not a LightGBM model text; pass what Booster.model_to_string() returns")
    if head.get("num_tree_per_iteration", "1") != "1":
        raise ForestError("a model with several outputs is not read; train one model per output")
    if "average_output" in sections[0].splitlines():
        raise ForestError("a LightGBM random forest averages its trees; only sums are read")
    width = int(head["max_feature_idx"]) + 1
    return tuple(_trees(sections[1:])), width


def _trees(sections: list[str]) -> Iterator[Tree]:
    for number, section in enumerate(sections):
        lines = _pairs(section.partition("\n\n")[0])
        try:
            yield _tree(lines)
        except (KeyError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ForestError(f"tree {number} of the model: {reason}") from error


def _tree(lines: Mapping[str, str]) -> Tree:
    if lines.get("num_cat", "0") != "0":
        raise ForestError(
            "a categorical split is not read; encode the category as numbers before training"
        )
    if lines.get("is_linear", "0") != "0":
        raise ForestError("linear leaves are not read; train with linear_tree=false")
    leaves = int(lines["num_leaves"])
    value = _numbers(lines["leaf_value"], np.float64)
    if leaves == 1:  # a constant has neither nodes nor counts
        return _constant(value)
    decision = _numbers(lines["decision_type"], np.int64)
    if (decision & _CATEGORICAL).any():
        raise ForestError("a node is categorical; encode the category as numbers before training")
    return Tree(
        feature=_numbers(lines["split_feature"], np.int32),
        threshold=_numbers(lines["threshold"], np.float64),
        left=_numbers(lines["left_child"], np.int32),
        right=_numbers(lines["right_child"], np.int32),
        missing=((decision >> 2) & 3).astype(np.int8),
        default_left=(decision & _DEFAULT_LEFT) > 0,
        count=_numbers(lines["internal_count"], np.float64),
        value=value,
        leaf_count=_numbers(lines["leaf_count"], np.float64),
    )


def _constant(value: NDArray[np.float64]) -> Tree:
    none: NDArray[Any] = np.zeros(0)
    return Tree(none, none, none, none, none, none, none, value[:1], np.ones(1))


def _numbers(text: str, kind: type[Any]) -> NDArray[Any]:
    return np.array(text.split(), dtype=kind)


def _pairs(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, mark, value in pairs if mark}
