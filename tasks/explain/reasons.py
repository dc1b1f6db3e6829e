"""Turns contributions into the few plain reasons an analyst reads beside an alert.

At most four reasons, and only factors that raised this score (12 CFR 1002.9 asks for specific
principal reasons, its commentary calls more than four unhelpful). Contributions are summed over
groups of features (``groups.py``); the wording comes from the member that raised the score most
and tells something the stronger reasons have not said already.
Two reasons that are no further apart than their errors explain are declared a tie (``ties.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.groups import FeatureGroups
from tasks.explain.ties import tied
from tasks.explain.tree import Explanation
from tasks.explain.wording import Wording, describe, story

MAX_REASONS = 4


@dataclass(frozen=True, slots=True)
class Reason:
    """One factor that raised a score.

    Attributes:
        text: Plain words.
        group: Stable key of the feature group, for logs and drift charts.
        contribution: Log-odds the group added (mean over the head's models), > 0.
        error: Standard error of the contribution: over the head's models and, where the explainer
            tells it, over backgrounds of the same size.
        tie: Whether the next reason is as good as this one within the errors of both.
    """

    text: str
    group: str
    contribution: float
    error: float = 0.0
    tie: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class ReasonRanker:
    """Gives rows their reasons by one set of groups and rules.

    Attributes:
        groups: Groups of the features.
    """

    def __init__(
        self,
        groups: FeatureGroups,
        *,
        limit: int = MAX_REASONS,
        floor: float = 0.1,
        share: float = 0.05,
        wording: Wording | None = None,
    ) -> None:
        """Prepare; arguments as ``rank_reasons``."""
        self.groups = groups
        self._limit, self._floor, self._share = limit, floor, share
        self._wording = wording or Wording()
        self._stories = tuple(story(meaning) for meaning in groups.meanings)

    def of_row(
        self,
        mean: Sequence[float],
        error: Sequence[float],
        single: Sequence[float],
        values: NDArray[np.floating[Any]],
    ) -> list[Reason]:
        """Return the reasons of one row, strongest first.

        Args:
            mean: Log-odds of each group [G], mean over the models.
            error: Standard error of each mean [G].
            single: Mean log-odds of each feature [F].
            values: The row's features [F].
        """
        least = max(self._floor, self._share * max(mean, default=0.0))
        raising = [g for g in range(len(mean)) if mean[g] >= least]
        order = sorted(raising, key=lambda g: -mean[g])
        reasons = []
        told: set[tuple[str, str]] = set()
        for place, group in enumerate(order[: self._limit]):
            spokesman = self._spokesman(group, single, told)
            told.add(self._stories[spokesman])
            after = order[place + 1] if place + 1 < len(order) else None
            tie = after is not None and tied(mean[group], mean[after], error[group], error[after])
            meaning, value = self.groups.meanings[spokesman], float(values[spokesman])
            text = describe(meaning, value, self._wording)
            key = self.groups.keys[group]
            reasons.append(Reason(text, key, mean[group], error[group], tie=tie))
        return reasons

    def _spokesman(self, group: int, single: Sequence[float], told: set[tuple[str, str]]) -> int:
        """Choose the member that words a group: the strongest whose story is not told yet."""
        members = self.groups.members[group]
        new = [m for m in members if single[m] > 0 and self._stories[m] not in told]
        return max(new or members, key=single.__getitem__)


def rank_reasons(
    explanation: Explanation,
    values: NDArray[np.floating[Any]],
    groups: FeatureGroups,
    *,
    limit: int = MAX_REASONS,
    floor: float = 0.1,
    share: float = 0.05,
    wording: Wording | None = None,
) -> list[list[Reason]]:
    """Give every explained row its reasons, strongest first.

    Args:
        explanation: Contributions of the rows.
        values: The rows' features ``[n, F]``.
        groups: Groups of the same features.
        limit: Most reasons per row.
        floor: Log-odds below which a group is no reason.
        share: Share of the strongest reason below which a group is none: what adds a twentieth of
            the principal factor would only distract from it.
        wording: How numbers are said.

    Returns:
        One list per row; empty where nothing raised the score.

    Raises:
        ValueError: When rows and explanation do not belong together.
    """
    if values.shape != explanation.per_model.shape[1:]:
        raise ValueError(
            f"{values.shape} features for {explanation.per_model.shape[1:]} contributions; "
            "pass the rows that were explained"
        )
    ranker = ReasonRanker(groups, limit=limit, floor=floor, share=share, wording=wording)
    by_model = groups.sums(explanation.per_model)
    mean = by_model.mean(axis=0)
    k = len(by_model)
    error = by_model.std(axis=0, ddof=1) / np.sqrt(k) if k > 1 else np.zeros_like(mean)
    rows = zip(mean.tolist(), error.tolist(), explanation.values.tolist(), values, strict=True)
    return [ranker.of_row(*row) for row in rows]


def top_groups(
    explanation: Explanation, groups: FeatureGroups, *, limit: int = 12
) -> list[tuple[str, float]]:
    """Rank groups by their mean absolute contribution over the explained rows.

    Returns:
        ``(label in words, mean |log-odds|)``, largest first.
    """
    if explanation.per_model.shape[1] == 0:
        return []
    strength = np.abs(groups.sums(explanation.values)).mean(axis=0)
    order = np.argsort(-strength, kind="stable")[:limit].tolist()
    return [(groups.labels[g], float(strength[g])) for g in order]
