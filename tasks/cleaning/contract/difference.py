"""What changed from one contract to another, and whether rows that passed may fail now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.transactions.checks import checks_of

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
        where: Column, or the name of a dependency, denial or key; "" for the table.
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
    found = [*_columns(before, after)]
    for line, names in (
        (
            "dependency",
            ({d.name for d in before.dependencies}, {d.name for d in after.dependencies}),
        ),
        ("denial", ({d.name for d in before.denials}, {d.name for d in after.denials})),
        ("key", ({"+".join(k) for k in before.keys}, {"+".join(k) for k in after.keys})),
        ("sensor", ({s.column for s in before.sensors}, {s.column for s in after.sensors})),
    ):
        # These repair; alone they set no row aside.
        effects: tuple[Effect, Effect] = (
            ("other", "other") if line in {"dependency", "sensor"} else ("looser", "stricter")
        )
        found += [Difference(n, line, n, None, effects[0]) for n in sorted(names[0] - names[1])]
        found += [Difference(n, line, None, n, effects[1]) for n in sorted(names[1] - names[0])]
    said = {d.name: d for d in before.denials}
    for denial in after.denials:
        if denial.name in said and said[denial.name].forbidden != denial.forbidden:
            was = said[denial.name].forbidden
            found.append(Difference(denial.name, "denial", was, denial.forbidden, "other"))
    found += _checks(before, after)
    for line, bound in (("min_rows", "minimum"), ("max_quarantine_share", "maximum")):
        was, now = getattr(before, line), getattr(after, line)
        if was != now:
            found.append(Difference("", line, was, now, _restriction(bound, was, now)))
    if before.max_rows != after.max_rows:
        smaller = after.max_rows > 0 and not 0 < before.max_rows < after.max_rows
        effect: Effect = "stricter" if smaller else "looser"
        found.append(Difference("", "max_rows", before.max_rows, after.max_rows, effect))
    if before.extra_columns != after.extra_columns:
        effect = "looser" if after.extra_columns else "stricter"
        found.append(
            Difference("", "extra_columns", before.extra_columns, after.extra_columns, effect)
        )
    return found


def _checks(before: Contract, after: Contract) -> Iterator[Difference]:
    """Tell which lines of transactions came, went or say something else."""
    old, new = (
        {
            (check.name, check.expected, check.line not in rules.confidence)
            for rules in one.transactions
            for check in checks_of(rules)
        }
        for one in (before, after)
    )
    for name in sorted({name for name, *_ in old ^ new}):
        was, now = (sorted(says for n, *says in one if n == name) for one in (old, new))
        effect: Effect = "other"
        if not was or not now:
            effect = "stricter" if now else "looser"
        yield Difference(name, "transactions", was or None, now or None, effect)


def _bindings(contract: Contract) -> dict[str, set[str]]:
    """Return the names of what binds several columns, by kind of line."""
    return {
        "dependency": {one.name for one in contract.dependencies},
        "denial": {one.name for one in contract.denials},
        "key": {"+".join(key) for key in contract.keys},
    }


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
