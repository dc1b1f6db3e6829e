"""Runs a scorecard beside a model; every disagreement is on record with the points behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tasks.explain.rules.engine import Codes, Conflict, Kind, Power, checked_codes, checked_powers
from tasks.explain.rules.model import DECISIONS
from tasks.explain.rules.scorecard import Points, Scorecard, run_scorecard

TOLD = 3
"""Rules that a reason names."""


def beside_scorecard(
    card: Scorecard, rows: ArrayLike, model: ArrayLike, powers: Sequence[Power] = ("flag",)
) -> tuple[Codes, list[Conflict]]:
    """Let a scorecard flag or veto what a model decides.

    A scorecard decides every row, so that with ``veto`` it approves whatever it does not flag;
    the power is therefore not given by default.

    Args:
        card: The approved scorecard.
        rows: [n, F].
        model: [n] places in ``DECISIONS``.
        powers: ``flag``: a graver decision of the scorecard replaces the model's. ``veto``: its
            approval does.

    Returns:
        Final decisions int8 [n], and every disagreement in the order of rows.

    Raises:
        RuleSetError: On decisions or powers that are none, or shapes that do not fit.

    Example:
        >>> from tasks.explain.rules.scorecard import GradedRule, Ramp
        >>> large = GradedRule((Ramp("amount", 100, 200),), 10)
        >>> card = Scorecard("cards", "1", ("amount",), (large,), 0, 5, 10)
        >>> final, found = beside_scorecard(card, [[180], [20]], [0, 0])
        >>> final.tolist(), found[0].kind
        ([1, 0], 'flag')
    """
    checked_powers(powers)
    said = run_scorecard(card, rows)
    given = checked_codes(model, len(said.decisions))
    final = given.copy()
    if "flag" in powers:
        final = np.maximum(final, said.decisions)
    if "veto" in powers:
        # A rule that lacks a value adds nothing; with it, it might have flagged.
        final[(said.decisions == 0) & ~said.missing.any(axis=1)] = 0
    differ = np.flatnonzero(said.decisions != given)
    return final, [_conflict(card, said, int(row), given, final) for row in differ]


def _conflict(card: Scorecard, said: Points, row: int, given: Codes, final: Codes) -> Conflict:
    code = int(said.decisions[row])
    graver = code > given[row]
    kind: Kind = "flag" if graver else "lighter" if code else "veto"
    model, rules, decided = DECISIONS[given[row]], DECISIONS[code], DECISIONS[final[row]]
    added = said.added[row] if graver else -said.added[row]
    order = [int(one) for one in np.argsort(-added, kind="stable") if added[one] > 0]
    told = ", ".join(
        f"{said.added[row, one]:+.0f} by {card.rules[one].id} ({card.rules[one]})"
        for one in order[:TOLD]
    )
    unread = int(said.missing[row].sum())
    lacks = f"; {unread} rules lack a value they read" if unread else ""
    reason = (
        f"{said.total[row]:.0f} points say {rules}: {told or 'no rule adds to that'}{lacks}; the "
        f"model says {model}: {decided}"
    )
    by = tuple(card.rules[one].id for one in order)
    return Conflict(row, kind, model, rules, decided, by, reason)
