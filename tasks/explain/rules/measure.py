"""How well rules stand for a model's decisions, on rows that they were not mined from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.engine import Bools, Codes, Outcome, checked_codes, run_rules
from tasks.explain.rules.model import DECISIONS, Decision, RuleSet, RuleSetError

Z = 1.959963984540054
"""Of a 95 % interval."""

STRONGEST = 3
"""Features that describe a gap."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows with its Wilson interval of 95 %.

    Attributes:
        hits: Rows that count.
        rows: All rows asked.
        value: Their ratio, NaN of no rows.
        low: Lower end, 0 of no rows.
        high: Upper end, 1 of no rows.
    """

    hits: int
    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """One rule on unseen rows.

    A row is on a rule's side where the model's decision is at least as grave as the rule's; for a
    rule that approves, where the model approves.

    Attributes:
        id: The rule.
        decision: What it decides.
        support: Rows on which it holds.
        precision: Of these, those on its side.
        coverage: Rows on which it holds, of all.
        recall: Of the rows on its side, those on which it holds.
        missing: Rows that lack a value it reads.
    """

    id: str
    decision: Decision
    support: int
    precision: Share
    coverage: Share
    recall: Share
    missing: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A row that the model flags and no rule does.

    Attributes:
        row: Its place.
        decision: The model's.
        strongest: Names, values and weights of the features that speak loudest, loudest first.
    """

    row: int
    decision: Decision
    strongest: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Agreement:
    """Decisions beside a model's; "flagged" means review or block.

    Attributes:
        fidelity: Rows decided as the model does (a row without a rule counts as approved), of all.
        coverage: Rows that the rules flag, of those that the model flags (recall).
        precision: Rows that the model flags, of those that the rules flag.
        f1: Of flagged rows.
        f1_block: Of blocked rows.
        gaps: Rows that the model flags and the rules do not.
    """

    fidelity: Share
    coverage: Share
    precision: Share
    f1: float
    f1_block: float
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class SetFigures(Agreement):
    """A rule set on unseen rows.

    Attributes:
        rules: Figures of each rule.
        n_rules: Their number.
        conflicts: int64, places of rows on which one rule approves and another one flags.
        nested: Rows on which a rule that reviews and one that blocks hold. The graver one decides,
            and who blocks does not contradict who would at least look: this is no conflict.
    """

    rules: tuple[RuleFigures, ...]
    n_rules: int
    conflicts: NDArray[np.int64]
    nested: int


def wilson(hits: int, rows: int) -> Share:
    """Return a share with its score interval of 95 % (Wilson 1927)."""
    if rows == 0:
        return Share(0, 0, math.nan, 0.0, 1.0)
    share, z2 = hits / rows, Z * Z / rows
    middle = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return Share(hits, rows, share, low, 1.0 if hits == rows else min(1.0, middle + half))


def measure(
    rules: RuleSet,
    rows: ArrayLike,
    model: ArrayLike,
    contributions: NDArray[np.float64] | None = None,
) -> SetFigures:
    """Measure a set against the model's decisions.

    Args:
        rules: The set.
        rows: [n, F], not those it was mined from.
        model: [n] places in ``DECISIONS``.
        contributions: float64 [n, F], SHAP values that say which features are strongest in a gap.
            Without them distance from the median decides, in interquartile ranges.

    Raises:
        RuleSetError: On shapes that do not fit, decisions that are none, or no rows.
    """
    values = np.asarray(rows, dtype=np.float64)
    outcome = run_rules(rules, values)
    given = checked_codes(model, len(values))
    found = agreement(rules.features, values, outcome.decisions, given, contributions)
    return SetFigures(
        **{one.name: getattr(found, one.name) for one in fields(found)},
        rules=tuple(_rule(rules, outcome, given, place) for place in range(len(rules.rules))),
        n_rules=len(rules.rules),
        conflicts=np.flatnonzero(outcome.mixed(rules)).astype(np.int64),
        nested=int(outcome.nested(rules).sum()),
    )


def agreement(
    names: Sequence[str],
    values: NDArray[np.float64],
    decisions: Codes,
    model: ArrayLike,
    contributions: NDArray[np.float64] | None = None,
) -> Agreement:
    """Compare decisions with a model's.

    Args:
        names: Names of the F features.
        values: float64 [n, F].
        decisions: int8 [n], places in ``DECISIONS``, -1 counts as approved.
        model: [n] places in ``DECISIONS``.
        contributions: As in `measure`.

    Raises:
        RuleSetError: On shapes that do not fit, decisions that are none, or no rows.
    """
    given = checked_codes(model, len(values))
    if not len(values):
        raise RuleSetError("no rows to measure on; pass rows after those the set was mined from")
    if contributions is not None and contributions.shape != values.shape:
        raise RuleSetError(
            f"contributions have shape {contributions.shape}, rows {values.shape}: pass one value "
            "for each feature of each row"
        )
    said = np.maximum(decisions, 0)
    flagged, wanted = said > 0, given > 0
    both = int((flagged & wanted).sum())
    return Agreement(
        fidelity=wilson(int((said == given).sum()), len(given)),
        coverage=wilson(both, int(wanted.sum())),
        precision=wilson(both, int(flagged.sum())),
        f1=f1_of(flagged, wanted),
        f1_block=f1_of(said == DECISIONS.index("block"), given == DECISIONS.index("block")),
        gaps=_gaps(names, values, given, wanted & ~flagged, contributions),
    )


def f1_of(found: Bools, wanted: Bools) -> float:
    """Return F1, ``2 hits / (found + wanted)``; NaN where there is nothing of either."""
    total = int(found.sum()) + int(wanted.sum())
    return 2 * int((found & wanted).sum()) / total if total else math.nan


def on_side(decision: Decision, given: Codes) -> Bools:
    """Return the rows that a rule of a decision is right about, bool [n]."""
    code = DECISIONS.index(decision)
    return np.asarray(given >= code if code else given == 0, dtype=np.bool_)


def _rule(rules: RuleSet, outcome: Outcome, given: Codes, place: int) -> RuleFigures:
    rule, held = rules.rules[place], outcome.matched[:, place]
    side = on_side(rule.decision, given)
    support, hits = int(held.sum()), int((held & side).sum())
    return RuleFigures(
        rule.id,
        rule.decision,
        support,
        precision=wilson(hits, support),
        coverage=wilson(support, len(given)),
        recall=wilson(hits, int(side.sum())),
        missing=int(outcome.missing[:, place].sum()),
    )


def _gaps(
    names: Sequence[str],
    values: NDArray[np.float64],
    given: Codes,
    where: Bools,
    contributions: NDArray[np.float64] | None,
) -> tuple[Gap, ...]:
    places = np.flatnonzero(where)
    if not len(places):
        return ()
    if contributions is None:
        finite = np.where(np.isfinite(values), values, np.nan)
        known = np.isfinite(values).any(axis=0)
        low, middle, high = np.full((3, values.shape[1]), np.nan)
        low[known], middle[known], high[known] = np.nanquantile(
            finite[:, known], [0.25, 0.5, 0.75], axis=0
        )
        spread = np.where(high > low, high - low, 1.0)
        weights = np.nan_to_num((finite[places] - middle) / spread)
    else:
        weights = contributions[places]
    found = []
    for place, row in enumerate(places):
        order = np.argsort(-np.abs(weights[place]), kind="stable")[:STRONGEST]
        strongest = tuple(
            (names[one], float(values[row, one]), float(weights[place, one])) for one in order
        )
        found.append(Gap(int(row), DECISIONS[given[row]], strongest))
    return tuple(found)
