"""How well a scorecard stands for a model's decisions, and what each of its rules is needed for."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.engine import checked_codes
from tasks.explain.rules.measure import Agreement, agreement, f1_of
from tasks.explain.rules.scorecard import Scorecard, run_scorecard


@dataclass(frozen=True, slots=True)
class GradedFigures:
    """One graded rule on unseen rows.

    Attributes:
        id: The rule.
        points: What it adds in full.
        support: Rows to which it adds anything.
        mean_added: Points that it adds to these in the mean, NaN of none.
        f1_without: F1 of flagged rows when it is left out and nothing else is changed.
        missing: Rows that lack a value it reads.
    """

    id: str
    points: int
    support: int
    mean_added: float
    f1_without: float
    missing: int


@dataclass(frozen=True)
class CardFigures(Agreement):
    """A scorecard on unseen rows. Points add up, so its rules have no conflicts to list.

    Attributes:
        rules: Figures of each rule.
        n_rules: Their number, the two cutoffs counted.
    """

    rules: tuple[GradedFigures, ...]
    n_rules: int


def measure_scorecard(
    card: Scorecard,
    rows: ArrayLike,
    model: ArrayLike,
    contributions: NDArray[np.float64] | None = None,
) -> CardFigures:
    """Measure a scorecard against the model's decisions.

    Args:
        card: The scorecard.
        rows: [n, F], not those it was fitted to.
        model: [n] places in ``DECISIONS``.
        contributions: float64 [n, F], SHAP values that say which features are strongest in a gap.

    Raises:
        RuleSetError: On shapes that do not fit, decisions that are none, or no rows.
    """
    values = np.asarray(rows, dtype=np.float64)
    found = run_scorecard(card, values)
    told = agreement(card.features, values, found.decisions, model, contributions)
    wanted = checked_codes(model, len(values)) > 0
    figures = []
    for place, rule in enumerate(card.rules):
        added = found.added[:, place]
        touched = added != 0
        figures.append(
            GradedFigures(
                rule.id,
                rule.points,
                int(touched.sum()),
                float(added[touched].mean()) if touched.any() else float("nan"),
                f1_of(found.total - added >= card.review_at, wanted),
                int(found.missing[:, place].sum()),
            )
        )
    return CardFigures(
        **{one.name: getattr(told, one.name) for one in fields(told)},
        rules=tuple(figures),
        n_rules=card.n_rules,
    )
