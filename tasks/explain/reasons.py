"""Turns contributions into the few plain reasons an analyst reads beside an alert.

At most four reasons, and only factors that raised this score (12 CFR 1002.9 asks for specific
principal reasons, its commentary calls more than four unhelpful). Contributions are summed over
groups of features (``groups.py``); the wording comes from the member that raised the score most
and tells something the stronger reasons have not said already.
Two reasons whose order the head's own models do not agree on are declared a tie.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.groups import FeatureGroups
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
        error: Standard error of that mean over the models; 0 for a single model.
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
    by_model = groups.sums(explanation.per_model)
    mean = by_model.mean(axis=0)
    k = len(by_model)
    error = by_model.std(axis=0, ddof=1) / np.sqrt(k) if k > 1 else np.zeros_like(mean)
    single = explanation.values
    style = wording or Wording()
    least = np.maximum(floor, share * mean.max(axis=1, initial=0.0))
    return [
        _reasons_of_row(
            mean[row], error[row], single[row], values[row], groups, limit, least[row], style
        )
        for row in range(len(values))
    ]


def _reasons_of_row(
    mean: NDArray[np.float64],
    error: NDArray[np.float64],
    single: NDArray[np.float64],
    values: NDArray[np.floating[Any]],
    groups: FeatureGroups,
    limit: int,
    floor: float,
    wording: Wording,
) -> list[Reason]:
    order = [int(g) for g in np.argsort(-mean, kind="stable") if mean[g] >= floor]
    reasons = []
    told: set[tuple[str, str]] = set()
    for place, group in enumerate(order[:limit]):
        spokesman = _spokesman(groups, group, single, told)
        told.add(story(groups.meanings[spokesman]))
        after = order[place + 1] if place + 1 < len(order) else None
        tie = after is not None and bool(
            mean[group] - mean[after] < np.hypot(error[group], error[after])
        )
        text = describe(groups.meanings[spokesman], float(values[spokesman]), wording)
        reasons.append(
            Reason(text, groups.keys[group], float(mean[group]), float(error[group]), tie=tie)
        )
    return reasons


def _spokesman(
    groups: FeatureGroups, group: int, single: NDArray[np.float64], told: set[tuple[str, str]]
) -> int:
    """Choose the member that words a group: the strongest whose story is not told yet."""
    members = groups.members[group]
    new = [m for m in members if single[m] > 0 and story(groups.meanings[m]) not in told]
    return max(new or members, key=lambda m: float(single[m]))


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
