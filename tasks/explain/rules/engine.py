"""Runs a rule set over rows, alone and beside a model; every disagreement is on record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.model import DECISIONS, SILENT, Decision, FlatRules, RuleSet, RuleSetError

Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]
Power = Literal["flag", "veto"]
AT_ONCE = 16_384
"""Rows that all conditions are held against at once."""

Kind = Literal["flag", "veto", "lighter", "no rule", "rules differ"]


@dataclass(frozen=True)
class Outcome:
    """What a rule set says of rows.

    Attributes:
        matched: bool [n, R], which rules hold.
        decisions: int8 [n], place in ``DECISIONS`` of the gravest rule that holds, -1: none does.
        missing: bool [n, R], rules that cannot hold because a value they read is not finite.
    """

    matched: Bools
    decisions: Codes
    missing: Bools

    def mixed(self, rules: RuleSet) -> Bools:
        """Return where one rule approves and another one flags, bool [n]."""
        approves = self._any(rules, "approve")
        return np.asarray(approves & (self._any(rules, "review") | self._any(rules, "block")))

    def nested(self, rules: RuleSet) -> Bools:
        """Return where a rule that reviews and one that blocks hold, bool [n]: no contradiction."""
        return np.asarray(self._any(rules, "review") & self._any(rules, "block"))

    def _any(self, rules: RuleSet, decision: Decision) -> Bools:
        chosen = [rule.decision == decision for rule in rules.rules]
        return np.asarray(self.matched[:, chosen].any(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A row on which rules and model disagree.

    Attributes:
        row: Its place.
        kind: ``flag``: rules are graver. ``veto``: rules approve what the model flags.
            ``lighter``: rules flag, but less gravely. ``no rule``: the model flags and no rule
            holds. ``rules differ``: the gravest rule flags as the model does, another one approves.
        model: What the model decides, None where none scored.
        rules: What the rules decide, None where none holds.
        final: What is decided.
        by: Ids of the rules that hold, the gravest first.
        reason: One sentence.
    """

    row: int
    kind: Kind
    model: Decision | None
    rules: Decision | None
    final: Decision
    by: tuple[str, ...]
    reason: str


def codes(decisions: Iterable[str]) -> Codes:
    """Return decisions as their places in ``DECISIONS``, int8 [n].

    Raises:
        RuleSetError: On a word that is none.
    """
    places: dict[str, int] = {name: place for place, name in enumerate(DECISIONS)}
    listed = list(decisions)
    unknown = next((one for one in listed if one not in places), None)
    if unknown is not None:
        raise RuleSetError(f"decision {unknown!r}; use {', '.join(DECISIONS)}")
    return np.array([places[one] for one in listed], dtype=np.int8)


def run_rules(rules: RuleSet, rows: ArrayLike) -> Outcome:
    """Evaluate every rule on every row.

    Thresholds are exact: rows are compared as float64, which holds every float32.

    Args:
        rules: The set.
        rows: [n, F], columns in the order of ``rules.features``.

    Raises:
        RuleSetError: On rows of another width.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(rules.features):
        raise RuleSetError(
            f"rows have shape {values.shape}, the set knows {len(rules.features)} features; pass "
            "rows [n, F] of exactly these features in their order"
        )
    if not rules.rules:
        none = np.zeros((len(values), 0), dtype=np.bool_)
        return Outcome(none, np.full(len(values), SILENT, dtype=np.int8), none)
    parts = [_run(rules.flat, part) for part in blocks(values)]
    return Outcome(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def blocks(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return rows [n, F] in parts, one at least.

    Every condition has a copy of what it reads: all rows of a large table would not fit at once.
    """
    starts = range(0, max(len(values), 1), AT_ONCE)
    return [values[start : start + AT_ONCE] for start in starts]


def _run(flat: FlatRules, values: NDArray[np.float64]) -> tuple[Bools, Codes, Bools]:
    """Return what ``Outcome`` holds, of some rows."""
    read = values[:, flat.columns]
    lacks = ~np.isfinite(read)
    sided = read * flat.sides
    held = (sided > flat.bounds) | ((sided == flat.bounds) & flat.closed)
    held &= ~lacks
    matched = np.logical_and.reduceat(held, flat.starts, axis=1)
    missing = np.logical_or.reduceat(lacks, flat.starts, axis=1)
    decisions = np.where(matched, flat.decisions, np.int8(SILENT)).max(axis=1)
    return matched, decisions, missing


def beside_model(
    rules: RuleSet,
    rows: ArrayLike,
    model: ArrayLike,
    powers: Sequence[Power] = ("flag",),
) -> tuple[Codes, list[Conflict]]:
    """Let rules flag or veto what a model decides.

    With ``flag`` a graver decision of the rules replaces the model's; with ``veto`` an approval by
    the rules does, where no rule lacks a value that it reads: one that would have blocked may be
    among them. Without the power the model's decision stands. Disagreements are returned all.

    Args:
        rules: The approved set.
        rows: [n, F].
        model: [n] places in ``DECISIONS``: 0 approve, 1 review, 2 block.
        powers: What the rules may do.

    Returns:
        Final decisions int8 [n], and every conflict in the order of rows.

    Raises:
        RuleSetError: On decisions or powers that are none, or shapes that do not fit.
    """
    checked_powers(powers)
    outcome = run_rules(rules, rows)
    given = checked_codes(model, len(outcome.decisions))
    final = given.copy()
    said = outcome.decisions
    if "flag" in powers:
        final = np.maximum(final, said)
    if "veto" in powers:
        final[(said == 0) & (given > 0) & ~outcome.missing.any(axis=1)] = 0
    against = (said != given) & ((said != SILENT) | (given > 0))
    differ = np.flatnonzero(against | outcome.mixed(rules))
    return final, [_conflict(rules, outcome, int(row), given, final) for row in differ]


def checked_powers(powers: Sequence[Power]) -> None:
    """Check what rules may do.

    Raises:
        RuleSetError: On a power that is none.
    """
    unknown = sorted(set(powers) - {"flag", "veto"})
    if unknown:
        raise RuleSetError(f"unknown power {unknown[0]!r}; use flag, veto, both or none")


def checked_codes(decisions: ArrayLike, rows: int) -> Codes:
    """Return decisions as int8 [n].

    Raises:
        RuleSetError: Where they are not 0, 1 or 2, one for each row.
    """
    given = np.asarray(decisions)
    if given.shape != (rows,) or not np.isin(given, range(len(DECISIONS))).all():
        raise RuleSetError(
            f"decisions of shape {given.shape} for {rows} rows: pass 0 (approve), 1 (review) or "
            "2 (block) for each row"
        )
    return given.astype(np.int8)


def _conflict(rules: RuleSet, outcome: Outcome, row: int, given: Codes, final: Codes) -> Conflict:
    model, code = DECISIONS[given[row]], int(outcome.decisions[row])
    matched = zip(rules.rules, outcome.matched[row], strict=True)
    held = [rule for rule, holds in matched if holds]
    held.sort(key=lambda rule: -DECISIONS.index(rule.decision))
    decided = DECISIONS[final[row]]
    by = tuple(rule.id for rule in held)
    if code == SILENT:
        unread = int(outcome.missing[row].sum())
        why = f"; {unread} rules lack a value they read" if unread else ""
        reason = f"the model says {model} and no rule holds{why}: {decided}"
        return Conflict(row, "no rule", model, None, decided, by, reason)
    said = DECISIONS[code]
    if code == given[row]:
        others = [f"{rule.id} says approve" for rule in held if rule.decision == "approve"]
        reason = f"rules and model say {said}, but rule {', '.join(others)}: {decided}"
        return Conflict(row, "rules differ", model, said, decided, by, reason)
    kind: Kind = "flag" if code > given[row] else "veto" if code == 0 else "lighter"
    reason = f"rule {held[0].id} says {said} because {held[0]}; the model says {model}: {decided}"
    return Conflict(row, kind, model, said, decided, by, reason)
