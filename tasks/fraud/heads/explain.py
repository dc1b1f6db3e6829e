"""Explains whichever head ships: trees and linear parts exactly, and weighted sums of them.

Contributions are in the head's uncalibrated log-odds; calibration keeps their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.linear import combine, explain_linear
from tasks.explain.tree import Explanation, TreeExplainer
from tasks.fraud.heads.head import Blend, Head, HeadError, Scorer, check_features
from tasks.fraud.heads.logistic import LogisticScorer
from tasks.fraud.heads.trees import TreeScorer


def explain_head(
    head: Head | Scorer,
    names: Sequence[str],
    values: NDArray[np.float32],
    background: Background | None = None,
) -> Explanation:
    """Explain rows of a head.

    Values are interventional: exact, against the background. Trees of an old bundle that has none
    use their own branch counts instead (method ``path``).

    Args:
        head: A head or its scorer.
        names: Names of the head's inputs, in its order.
        values: What the head reads ``[n, width]``.
        background: Frozen training rows of the same inputs; None leaves trees path-dependent and
            linear parts an error.

    Raises:
        HeadError: On a head whose contributions are not exact, such as a network, or a linear part
            without a background.
        tasks.explain.errors.AdditivityError: When contributions miss the score.
        ValueError: When features, names and background do not fit each other.
    """
    scorer = head.scorer if isinstance(head, Head) else head
    if len(names) != scorer.width:
        raise ValueError(f"{len(names)} names for the {scorer.width} inputs of the head")
    if background is not None and background.names != tuple(names):
        raise ValueError("background holds other features than the head; take the bundle's")
    return _explain(scorer, tuple(names), check_features(values, scorer.width), background)


def _explain(
    scorer: Scorer,
    names: tuple[str, ...],
    values: NDArray[np.float32],
    background: Background | None,
) -> Explanation:
    if isinstance(scorer, TreeScorer):
        return TreeExplainer(scorer.boosters, names, background=background).explain(values)
    if isinstance(scorer, LogisticScorer):
        return _explain_logistic(scorer, names, values, background)
    if isinstance(scorer, Blend):
        parts = [_explain(part, names, values, background) for part in scorer.parts]
        return combine(parts, scorer.weights)
    raise HeadError(
        f"a {type(scorer).__name__} has no exact contributions; ship a tree or logistic head where "
        "alerts need reasons"
    )


def _explain_logistic(
    scorer: LogisticScorer,
    names: tuple[str, ...],
    values: NDArray[np.float32],
    background: Background | None,
) -> Explanation:
    if background is None:
        raise HeadError("a linear head is explained against a background; pass the bundle's")
    features = np.arange(scorer.width)
    knots = scorer.scaling.outputs // scorer.width - 1
    return explain_linear(
        names,
        scorer.encode(values),
        scorer.encode(background.values),
        scorer.weights,
        scorer.bias,
        np.concatenate([features, np.repeat(features, knots)]),  # a feature, then its hinges
        background_sha256=background.sha256,
    )
