"""Which of two models deserves to serve: compared on the newest week, row by row.

A challenger must beat the champion by a margin beyond doubt. A first model must only not be
clearly worse than the logistic baseline in its own bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.promotion import Compare, Verdict
from connectors.registry import RegistryError
from tasks.fraud.bundle import Bundle
from tasks.fraud.evaluation.paired import PairedResult, PairedRules, compare_paired


@dataclass(frozen=True, slots=True)
class PromotionRules:
    """When a challenger replaces the champion.

    Attributes:
        margin: Average precision the lower bound must exceed. 0: the challenger must be better
            beyond doubt. A small negative value: it must not be worse by more than that.
        embeddings_margin: The margin instead where the challenger's head reads embeddings, as
            refreshed ones are promoted; None: the same.
        paired: Bootstrap settings.
    """

    margin: float = 0.0
    embeddings_margin: float | None = None
    paired: PairedRules = field(default_factory=PairedRules)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for margin in (self.margin, self.embeddings_margin or 0.0):
            if not -0.5 <= margin <= 0.5:
                raise ValueError(f"promotion margin {margin} must lie in -0.5..0.5")

    def margin_of(self, challenger: Bundle) -> tuple[float, str]:
        """Return the margin of a challenger and the rule in words."""
        margin, why = self.margin, ""
        if self.embeddings_margin is not None:
            if challenger.reads_embeddings():
                margin = self.embeddings_margin
            else:
                why = f", as head '{challenger.active}' reads no embeddings"
        return margin, f"lower bound must exceed {margin:+.3f}{why}"


@dataclass(frozen=True, slots=True)
class ComparisonWeek:
    """The newest labelled week, which no compared model may have learnt from.

    Attributes:
        start: First instant, epoch milliseconds.
        end: End, exclusive.
        label: int8 ``[n]``; 1 fraud, 0 legitimate.
        cluster: ``[n]`` entity of each row, for the bootstrap.
        score: ``(bundle, head) -> float64 [n]``; scores the rows from the raw transactions, so
            that models with different features can be compared.
    """

    start: int
    end: int
    label: NDArray[np.int8]
    cluster: NDArray[np.integer[Any]]
    score: Callable[[Bundle, str], NDArray[np.float64]]


def on_week(week: ComparisonWeek, rules: PromotionRules | None = None) -> Compare[Bundle]:
    """Return the comparison that a promotion asks for, on one week and by one set of rules."""
    chosen = rules or PromotionRules()

    def compare(challenger: Bundle, champion: Bundle | None, version: str) -> Verdict:
        if challenger.manifest.trained_until > week.start:
            raise RegistryError("the comparison week overlaps the challenger's training")
        if champion is None:
            return compare_with_baseline(week, challenger, chosen)
        return compare_with_champion(week, challenger, champion, version, chosen)

    return compare


def compare_with_champion(
    week: ComparisonWeek, challenger: Bundle, champion: Bundle, version: str, rules: PromotionRules
) -> Verdict:
    """Decide between a challenger and the champion, which is ``version``."""
    rival = f"champion (version {version})"
    if champion.manifest.trained_until > week.start:
        reason = f"{rival} learnt from the comparison week; wait until newer labels are known"
        return Verdict(wins=False, reason=reason, rival=rival)
    result = _on_the_week(week, challenger, week.score(champion, ""), rules)
    margin, rule = rules.margin_of(challenger)
    return Verdict(result.low > margin, _sentence(result, rival, rule), rival, result)


def compare_with_baseline(
    week: ComparisonWeek, challenger: Bundle, rules: PromotionRules
) -> Verdict:
    """Let a first model serve unless it is clearly worse than logistic regression."""
    if challenger.active == "logistic" or "logistic" not in challenger.heads:
        reason = "first model of its name; no logistic baseline beside it to compare with"
        return Verdict(wins=True, reason=reason)
    rival = "logistic baseline"
    result = _on_the_week(week, challenger, week.score(challenger, "logistic"), rules)
    rule = "first model: upper bound must not lie below 0"
    return Verdict(result.high >= 0, _sentence(result, rival, rule), rival, result)


def _on_the_week(
    week: ComparisonWeek,
    challenger: Bundle,
    rival_scores: NDArray[np.float64],
    rules: PromotionRules,
) -> PairedResult:
    """Compare the challenger's active head with a rival's scores on the same rows."""
    scores = week.score(challenger, "")
    return compare_paired(week.label, scores, rival_scores, week.cluster, rules.paired)


def _sentence(result: PairedResult, rival: str, rule: str) -> str:
    return (
        f"AP {result.first:.3f} against {result.second:.3f} of the {rival}, difference "
        f"{result.difference:+.3f} [{result.low:+.3f}, {result.high:+.3f}] on "
        f"{result.frauds} frauds ({rule})"
    )
