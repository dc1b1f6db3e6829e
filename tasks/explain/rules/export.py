"""Rule sets as text that people read, as ANSI SQL and as Flink SQL.

The queries add two columns: ``rule_decision``, NULL where no rule holds, and ``rule_ids``, those
that hold, each followed by a blank. Columns must be DOUBLE (or a number that widens to it). Every
feature is bounded on both sides, by the largest number where the rule does not bound it, since
engines disagree on how NaN and infinity compare.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tasks.explain.rules.measure import SetFigures, Share
from tasks.explain.rules.model import DECISIONS, Rule, RuleSet, RuleSetError

LARGEST = sys.float_info.max
Quote = Callable[[str], str]
"""Quotes a name."""

ADDED = ("rule_decision", "rule_ids")


def to_text(rules: RuleSet, figures: SetFigures | None = None) -> str:
    """Return a set as plain text, one rule a paragraph, with its figures where given.

    Raises:
        RuleSetError: On figures of another set.
    """
    if figures and [one.id for one in figures.rules] != [one.id for one in rules.rules]:
        raise RuleSetError("the figures are of other rules; measure this set")
    lines = [f"{rules.name}, version {rules.version}: {len(rules.rules)} rules"]
    lines += [f"data {rules.data_digest or 'unknown'}", f"model {rules.model_digest or 'unknown'}"]
    if figures:
        lines.append(
            f"fidelity {_said(figures.fidelity)}, coverage {_said(figures.coverage)}, "
            f"precision {_said(figures.precision)}, F1 {figures.f1:.3f}, "
            f"{len(figures.conflicts)} rows in conflict, {len(figures.gaps)} rows without a rule"
        )
    for place, rule in enumerate(rules.rules):
        lines += ["", f"{rule.id}: {rule.decision} if", f"  {rule}"]
        if rule.note:
            lines.append(f"  ({' '.join(rule.note.split())})")
        if figures:
            one = figures.rules[place]
            lines.append(
                f"  {one.support} rows, precision {_said(one.precision)}, "
                f"recall {_said(one.recall)}, coverage {_said(one.coverage)}"
            )
    return "\n".join(lines) + "\n"


def ansi_sql(rules: RuleSet, table: str) -> str:
    """Return a query in ANSI SQL over a table that has a column for every feature.

    Args:
        rules: The set.
        table: Name of the table.

    Raises:
        RuleSetError: On names that SQL cannot quote, or features named like an added column.
    """
    return _query(rules, table, ansi_name)


def flink_sql(rules: RuleSet, table: str) -> str:
    """Return a query in Flink SQL over a table that has a column for every feature.

    Args:
        rules: The set.
        table: Name of the table.

    Raises:
        RuleSetError: On names that SQL cannot quote, or features named like an added column.
    """
    return _query(rules, table, flink_name)


def _query(rules: RuleSet, table: str, quote: Quote) -> str:
    taken = sorted(set(ADDED) & {one.lower() for one in rules.features})
    if taken:
        raise RuleSetError(f"feature {taken[0]!r} has the name of an added column; rename it")
    cases = []
    for decision in reversed(DECISIONS):
        chosen = [_when(rule, quote) for rule in rules.rules if rule.decision == decision]
        if chosen:
            cases.append(f"WHEN {' OR '.join(chosen)} THEN '{decision}'")
    decided = f"CASE {' '.join(cases)} END" if cases else "CAST(NULL AS VARCHAR(7))"
    each = (f"CASE WHEN {_when(rule, quote)} THEN '{rule.id} ' ELSE '' END" for rule in rules.rules)
    ids = " || ".join(each) or "''"
    # Names are quoted, and conditions are made of what was read, not pasted.
    return f"SELECT *, {decided} AS {ADDED[0]}, {ids} AS {ADDED[1]} FROM {quote(table)}"  # noqa: S608


def _when(rule: Rule, quote: Quote) -> str:
    """Return the condition of a rule, every feature bounded on both sides."""
    parts = []
    for feature in rule.features:
        column = quote(feature)
        bounds = {one.from_below: one for one in rule.conditions if one.feature == feature}
        for below, operator, end in ((True, ">=", -LARGEST), (False, "<=", LARGEST)):
            one = bounds.get(below)
            said = (one.operator, one.value) if one else (operator, end)
            parts.append(f"{column} {said[0]} {sql_double(said[1])}")
    return f"({' AND '.join(parts)})"


def sql_double(number: float) -> str:
    """Return a number as a DOUBLE of SQL."""
    # Without an exponent it would be a DECIMAL.
    text = repr(float(number))
    return text if "e" in text else f"{text}E0"


def ansi_name(name: str) -> str:
    """Return a name as ANSI SQL quotes it.

    Raises:
        RuleSetError: On a name that cannot be quoted.
    """
    return '"' + _sayable(name).replace('"', '""') + '"'


def flink_name(name: str) -> str:
    """Return a name as Flink SQL quotes it.

    Raises:
        RuleSetError: On a name that cannot be quoted.
    """
    return "`" + _sayable(name).replace("`", "``") + "`"


def _sayable(name: str) -> str:
    if not name or any(ord(letter) < 32 for letter in name):
        raise RuleSetError(f"name {name!r} cannot be quoted in SQL; rename it")
    return name


def _said(share: Share) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
