"""Explains whichever head ships: trees and linear parts exactly, and weighted sums of them.

Contributions are in the head's uncalibrated log-odds; calibration keeps their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.groups import FeatureGroups
from tasks.explain.linear import combine, explain_linear
from tasks.explain.reasons import MAX_REASONS, Reason, rank_reasons, top_groups
from tasks.explain.tree import Background, Explanation, TreeExplainer
from tasks.explain.wording import Wording
from tasks.fraud.heads.head import Blend, Head, HeadError, Scorer, check_features
from tasks.fraud.heads.logistic import LogisticScorer
from tasks.fraud.heads.trees import TreeScorer


@dataclass(frozen=True, slots=True)
class ExplainedRows:
    """Rows with their reasons.

    Attributes:
        explanation: Contributions of every input of the head.
        groups: How inputs are grouped.
        reasons: At most four for each row, strongest first.
    """

    explanation: Explanation
    groups: FeatureGroups
    reasons: list[list[Reason]]

    def importance(self, limit: int = 12) -> list[tuple[str, float]]:
        """Return groups in words with their mean absolute contribution, largest first.

        Groups below a hundredth of the first are left out.
        """
        ranked = top_groups(self.explanation, self.groups, limit=limit)
        return [(label, strength) for label, strength in ranked if strength >= ranked[0][1] / 100]


def explain_rows(
    head: Head | Scorer,
    names: Sequence[str],
    values: NDArray[np.float32],
    entities: Sequence[str],
    *,
    background: Background | None = None,
    decimals: int = 2,
    limit: int = MAX_REASONS,
    categories: dict[str, tuple[str, ...]] | None = None,
) -> ExplainedRows:
    """Explain rows and say why their scores are high.

    Args:
        head: The head that scores.
        names: Names of the features, as ``explain_head`` takes them.
        values: What the head reads ``[n, width]``.
        entities: Entity columns of the dataset config.
        background: Frozen training rows; needed by linear parts.
        decimals: Decimal places of the currency.
        limit: Most reasons per row.
        categories: Values of the categorical columns, by column.
    """
    explanation = explain_head(head, names, values, background)
    groups = FeatureGroups.of(explanation.names, entities)
    wording = Wording(decimals, categories or {})
    reasons = rank_reasons(explanation, values, groups, limit=limit, wording=wording)
    return ExplainedRows(explanation, groups, reasons)


def input_names(head: Head | Scorer, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all inputs of a head: the features, then the graph network's outputs."""
    extra = head.width - len(names)
    return (*names, *(f"graph_{i}" for i in range(extra)))


def explain_head(
    head: Head | Scorer,
    names: Sequence[str],
    values: NDArray[np.float32],
    background: Background | None = None,
) -> Explanation:
    """Explain rows of a head.

    Trees use their own branch counts as reference (fast, exact); linear parts compare with the
    background.

    Args:
        head: A head or its scorer.
        names: Feature names in the head's order; inputs beyond them are outputs of the graph
            network and named ``graph_0``, ``graph_1`` ...
        values: What the head reads ``[n, width]``.
        background: Frozen training rows of the same inputs; needed by linear parts.

    Raises:
        HeadError: On a head whose contributions are not exact, such as a network, or a linear part
            without a background.
        tasks.explain.tree.AdditivityError: When contributions miss the score.
        ValueError: When features, names and background do not fit each other.
    """
    scorer = head.scorer if isinstance(head, Head) else head
    every = input_names(scorer, names)
    if background is not None and background.names != every:
        raise ValueError("background holds other features than the head; freeze a new one")
    return _explain(scorer, every, check_features(values, scorer.width), background)


def _explain(
    scorer: Scorer,
    names: tuple[str, ...],
    values: NDArray[np.float32],
    background: Background | None,
) -> Explanation:
    if isinstance(scorer, TreeScorer):
        return TreeExplainer(scorer.boosters, names).explain(values)
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
