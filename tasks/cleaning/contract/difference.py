"""What changed from one contract to another, and whether rows that passed may fail now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any, Literal

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.transactions.checks import checks_of
from tasks.cleaning.transactions.model import TransactionRules

Effect = Literal["stricter", "looser", "other"]
WIDER = frozenset({("integer", "decimal")})
"""Kinds of which the second takes every value of the first; text takes all."""
RESTRICTIONS = frozenset(
    {"pattern", "domain", "minimum", "maximum", "max_length", "unique", "check_digit"}
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One line that is not the same.

    Attributes:
        where: Column, or the name of a dependency, denial, reference or key; "" for the table.
        line: The line of the contract.
        before: What it said, None for nothing.
        after: What it says, None for nothing.
        effect: ``stricter`` if rows that passed may fail now, ``looser`` if only the reverse,
            ``other`` if neither can be told.
    """

    where: str
    line: str
    before: Any
    after: Any
    effect: Effect


def differences(before: Contract, after: Contract) -> list[Difference]:
    """Return every difference, columns in the new contract's order, then what binds them."""
    return [
        *_columns(before, after),
        *_bindings(before, after),
        *_checks(before, after),
        *_table(before, after),
    ]


def _bindings(before: Contract, after: Contract) -> Iterator[Difference]:
    """Compare what binds several columns, by its name."""
    old, new = _named(before), _named(after)
    for line in new:
        # Dependencies and sensors repair; alone they set no row aside.
        repairs = line in {"dependency", "sensor"}
        gone, come = ("other", "other") if repairs else ("looser", "stricter")
        for name in sorted(set(old[line]) - set(new[line])):
            yield Difference(name, line, name, None, gone)  # type: ignore[arg-type]
        for name in sorted(set(new[line]) - set(old[line])):
            yield Difference(name, line, None, name, come)  # type: ignore[arg-type]
        for name in (name for name in new[line] if name in old[line]):
            was, now = old[line][name], new[line][name]
            if was != now:
                yield Difference(name, line, was, now, "other")
    said = [{one.name: one.expected for one in c.denials} for c in (before, after)]
    for name in (name for name in said[1] if name in said[0]):
        if said[0][name] != said[1][name]:
            yield Difference(name, "expected", said[0][name], said[1][name], "other")


def _named(contract: Contract) -> Mapping[str, Mapping[str, Any]]:
    """Return what binds several columns, by line and name, with what else the lines say."""
    return {
        "dependency": {one.name: one.confidence for one in contract.dependencies},
        "denial": {one.name: one.forbidden for one in contract.denials},
        "reference": {one.name: one.table for one in contract.references},
        "key": {"+".join(key): key for key in contract.keys},
        "sensor": {one.column: one for one in contract.sensors},
    }


def _checks(before: Contract, after: Contract) -> Iterator[Difference]:
    """Tell which checks of transactions came or went, then which of their lines changed."""
    old, new = (
        Counter(check.name for rules in one.transactions for check in checks_of(rules))
        for one in (before, after)
    )
    moved = (old - new) + (new - old)
    for name in sorted(moved):
        effect: Effect = "stricter" if new[name] > old[name] else "looser"
        here = [name if one[name] else None for one in (old, new)]
        yield Difference(name, "transactions", here[0], here[1], effect)
    for i, (was, now) in enumerate(zip_longest(before.transactions, after.transactions)):
        if was is None or now is None:
            # What its lines check is told above.
            here = [None if one is None else one.time for one in (was, now)]
            yield Difference(f"transactions {i + 1}", "transactions", here[0], here[1], "other")
            continue
        bounds = {"near_seconds", "late_seconds", "max_speed_kmh"}  # each is of one check
        told = bounds & {
            one.line for one in (*checks_of(was), *checks_of(now)) if one.name in moved
        }
        for line in (f.name for f in fields(TransactionRules)):
            if line not in told and getattr(was, line) != getattr(now, line):
                effect = "other"
                if line == "confidence":
                    effect = _grown(set(was.confidence), set(now.confidence))
                says = getattr(was, line), getattr(now, line)
                yield Difference(f"transactions {i + 1}", line, says[0], says[1], effect)


def _table(before: Contract, after: Contract) -> Iterator[Difference]:
    """Compare the lines of the whole table."""
    was, now = before.label, after.label
    if (was is None) != (now is None):
        effect: Effect = "stricter" if now else "looser"
        yield Difference("", "label", was and was.column, now and now.column, effect)
    if was and now:
        for line in ("column", "features"):
            if getattr(was, line) != getattr(now, line):
                yield Difference("label", line, getattr(was, line), getattr(now, line), "other")
        if was.max_noise != now.max_noise:
            effect = _restriction("maximum", was.max_noise, now.max_noise)
            yield Difference("label", "max_noise", was.max_noise, now.max_noise, effect)
    if before.duplicates != after.duplicates:
        aside = [
            one is not None and one.action == "quarantine"
            for one in (before.duplicates, after.duplicates)
        ]
        effect = "other" if aside[0] == aside[1] else "stricter" if aside[1] else "looser"
        yield Difference("", "duplicates", before.duplicates, after.duplicates, effect)
    for line in TABLE_LINES:
        old, new = getattr(before, line), getattr(after, line)
        if old != new:
            yield Difference("", line, old, new, _table_effect(line, old, new))


TABLE_LINES = (
    "name", "version", "extra_columns", "min_rows", "max_rows", "newest", "max_age_days",
    "max_quarantine_share",
)  # fmt: skip
ABSENT = {"max_rows": 0, "newest": "", "max_age_days": 0.0}


def _table_effect(line: str, was: Any, now: Any) -> Effect:
    if line in ABSENT and ABSENT[line] in (was, now):
        return "stricter" if was == ABSENT[line] else "looser"
    if line == "extra_columns":
        return "looser" if now else "stricter"
    if line == "min_rows":
        return _restriction("minimum", was, now)
    if line in {"max_rows", "max_age_days", "max_quarantine_share"}:
        return _restriction("maximum", was, now)
    return "other"


def _columns(before: Contract, after: Contract) -> Iterator[Difference]:
    for name in [*after.columns, *(n for n in before.columns if n not in after.columns)]:
        old, new = before.columns.get(name), after.columns.get(name)
        if old is None or new is None:
            # Either way tables of the other shape are refused, unless columns may be extra.
            yield Difference(
                name, "column", old and name, new and name, "stricter" if new else "other"
            )
            continue
        for line in (f.name for f in fields(ColumnContract)):
            was, now = getattr(old, line), getattr(new, line)
            if was != now:
                yield Difference(name, line, was, now, _effect(line, was, now))


def _effect(line: str, was: Any, now: Any) -> Effect:
    """Tell whether a column's line got stricter."""
    if line == "nullable":
        return "looser" if now else "stricter"
    if line == "kind":
        widens = {now == "text", (was, now) in WIDER}
        narrows = {was == "text", (now, was) in WIDER}
        return "looser" if True in widens else "stricter" if True in narrows else "other"
    if line == "confidence":
        # What was inferred only shows; what is declared sets rows aside.
        return _grown(set(was), set(now))
    return _restriction(line, was, now) if line in RESTRICTIONS else "other"


def _restriction(line: str, was: Any, now: Any) -> Effect:
    """Tell whether a line that some have and some have not got stricter."""
    absent = {"pattern": "", "domain": (), "max_length": 0, "unique": False, "check_digit": ""}.get(
        line
    )
    if absent in (was, now):
        return "stricter" if was == absent else "looser"
    if line == "domain":
        return _grown(set(was), set(now))
    if line in {"pattern", "check_digit"} or isinstance(was, str) != isinstance(now, str):
        return "other"
    return "stricter" if (now > was) == (line == "minimum") else "looser"


def _grown(was: set[str], now: set[str]) -> Effect:
    """Tell what it means that a set of what is let pass grew, shrank, or is another one."""
    if was < now:
        return "looser"
    return "stricter" if now < was else "other"
