"""Sums of many small decision trees: scores and exact contributions within microseconds.

Public names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.forest.forest import TABLE_BYTES as TABLE_BYTES
    from kernels.forest.forest import Forest as Forest
    from kernels.forest.interventional import InterventionalForest as InterventionalForest
    from kernels.forest.lightgbm_text import read_model as read_model
    from kernels.forest.reference import contributions_reference as contributions_reference
    from kernels.forest.reference import interventional_reference as interventional_reference
    from kernels.forest.reference import score_reference as score_reference
    from kernels.forest.trees import ForestError as ForestError
    from kernels.forest.trees import Tree as Tree

_HOME = {
    "Forest": "forest",
    "ForestError": "trees",
    "InterventionalForest": "interventional",
    "TABLE_BYTES": "forest",
    "Tree": "trees",
    "contributions_reference": "reference",
    "interventional_reference": "reference",
    "read_model": "lightgbm_text",
    "score_reference": "reference",
}
__all__ = [
    "TABLE_BYTES",
    "Forest",
    "ForestError",
    "InterventionalForest",
    "Tree",
    "contributions_reference",
    "interventional_reference",
    "read_model",
    "score_reference",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
