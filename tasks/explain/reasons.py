"""Turns contributions into the few plain reasons an analyst reads beside an alert.

At most four reasons, and only factors that raised this score (12 CFR 1002.9 asks for specific
principal reasons, its commentary calls more than four unhelpful). Contributions are summed over
groups of features (``groups.py``); the wording comes from the member that raised the score most
and tells something the stronger reasons have not said already.
Two reasons that are no further apart than their errors explain are declared a tie (``ties.py``).
Codes and words come from a catalogue (``catalogue/``); groups of one code are one reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.catalogue.binding import bind
from tasks.explain.catalogue.files import house_catalogue
from tasks.explain.catalogue.model import MOST_REASONS, Catalogue
from tasks.explain.groups import FeatureGroups
from tasks.explain.ties import rounding_of, tied
from tasks.explain.tree import Explanation
from tasks.explain.wording import FeatureWords, Wording, story


@dataclass(frozen=True, slots=True)
class Reason:
    """One factor that raised a score.

    Attributes:
        text: Plain words.
        group: Stable key of the feature group, for logs and drift charts; groups of one code are
            joined by `` + ``.
        contribution: Log-odds the group added (mean over the head's models), > 0.
        error: Standard error of the contribution: over the head's models and, where the explainer
            tells it, over backgrounds of the same size.
        tie: Whether the next reason is as good as this one within the errors of both.
        code: Stable code of the catalogue.
        rival: Code of that next reason, be it listed or not; empty without a tie.
    """

    text: str
    group: str
    contribution: float
    error: float = 0.0
    tie: bool = False
    code: str = ""
    rival: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class ReasonRanker:
    """Gives rows their reasons by one set of groups and rules.

    Attributes:
        bound: The catalogue, bound to the features.
        groups: Groups of the features, those of one code made one: what ``of_row`` wants the
            values of.
    """

    def __init__(
        self,
        groups: FeatureGroups,
        *,
        limit: int | None = None,
        floor: float = 0.1,
        share: float = 0.05,
        wording: Wording | None = None,
        catalogue: Catalogue | None = None,
        list_ties: bool = False,
    ) -> None:
        """Prepare; arguments as ``rank_reasons``."""
        words = catalogue or house_catalogue()
        self.bound = bind(words, groups)
        self.groups = self.bound.groups
        self._limit = words.max_reasons if limit is None else limit
        if not 1 <= self._limit <= MOST_REASONS:
            raise ValueError(
                f"limit = {limit}; ask for 1 to {MOST_REASONS} reasons: more are no help to their "
                "reader (commentary on 12 CFR 1002.9)"
            )
        self._floor, self._share, self._list_ties = floor, share, list_ties
        self._stories = tuple(story(meaning) for meaning in groups.meanings)
        analyst = {
            member: entry.analyst
            for entry, members in zip(self.bound.entries, self.groups.members, strict=True)
            for member in members
            if entry is not None
        }
        self._words = tuple(
            FeatureWords(meaning, wording, words, analyst.get(place))
            for place, meaning in enumerate(groups.meanings)
        )

    def of_row(
        self,
        mean: Sequence[float],
        error: Sequence[float],
        single: Sequence[float],
        values: NDArray[np.floating[Any]],
    ) -> list[Reason]:
        """Return the reasons of one row, strongest first.

        Args:
            mean: Log-odds of each group of ``groups`` [G], mean over the models.
            error: Standard error of each mean [G].
            single: Mean log-odds of each feature [F].
            values: The row's features [F].
        """
        least = max(self._floor, self._share * max(mean, default=0.0))
        raising = [g for g in range(len(mean)) if mean[g] >= least]
        order = sorted(raising, key=lambda g: -mean[g])
        reasons: list[Reason] = []
        codes, rounding = self.bound.codes, rounding_of(mean)
        told: set[tuple[str, str]] = set()
        for place, group in enumerate(order):
            if place >= self._limit and not (self._list_ties and reasons[-1].tie):
                break
            spokesman = self._spokesman(group, single, told)
            told.add(self._stories[spokesman])
            after = order[place + 1] if place + 1 < len(order) else None
            tie = after is not None and tied(
                mean[group], mean[after], error[group], error[after], rounding
            )
            reasons.append(
                Reason(
                    self._words[spokesman](float(values[spokesman])),
                    self.groups.keys[group],
                    mean[group],
                    error[group],
                    tie,
                    codes[group],
                    codes[after] if tie and after is not None else "",
                )
            )
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
    limit: int | None = None,
    floor: float = 0.1,
    share: float = 0.05,
    wording: Wording | None = None,
    catalogue: Catalogue | None = None,
    list_ties: bool = False,
) -> list[list[Reason]]:
    """Give every explained row its reasons, strongest first.

    Args:
        explanation: Contributions of the rows.
        values: The rows' features ``[n, F]``.
        groups: Groups of the same features.
        limit: Most reasons per row, 1 to 4; None: as the catalogue says.
        floor: Log-odds below which a group is no reason.
        share: Share of the strongest reason below which a group is none: what adds a twentieth of
            the principal factor would only distract from it.
        wording: How numbers are said, and in which language.
        catalogue: Codes and words; None: the house's.
        list_ties: Whether reasons that tie with the last one are listed as well, beyond the limit.

    Returns:
        One list per row; empty where nothing raised the score.

    Raises:
        ValueError: When rows and explanation do not belong together, or on a limit beyond four.
        CatalogueError: When the catalogue does not fit the model, see ``bind``.
    """
    if values.shape != explanation.per_model.shape[1:]:
        raise ValueError(
            f"{values.shape} features for {explanation.per_model.shape[1:]} contributions; "
            "pass the rows that were explained"
        )
    ranker = ReasonRanker(
        groups,
        limit=limit,
        floor=floor,
        share=share,
        wording=wording,
        catalogue=catalogue,
        list_ties=list_ties,
    )
    mean, error = ranker.groups.mean_and_error(explanation.per_model)
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
