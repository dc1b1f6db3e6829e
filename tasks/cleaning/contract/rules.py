"""A contract compiled into rules over rows: as Polars expressions and as Flink SQL.

Both say *broken*, are true or false and never null, and read texts: a value that cannot be read as
its kind breaks one rule, ``kind``, and no other. Rules across rows (``unique``, keys, transactions)
and tables (references) have no SQL, nor have check digits, and say so. Rules that read the same
column share the reading when they are computed in one query of a lazy frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import polars as pl

from tasks.cleaning.contract.condition_rules import compiled
from tasks.cleaning.contract.conditions import parse
from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError, Reference
from tasks.cleaning.contract.patterns import MAX_DEEP_CHARACTERS, portable
from tasks.cleaning.contract.values import (
    Both,
    column,
    double,
    identifier,
    instant,
    integer,
    matches,
    quoted,
    readable,
)
from tasks.cleaning.transactions.check_digits import holds
from tasks.cleaning.transactions.checks import TransactionCheck, checks_of

BROKEN, DOUBTFUL = "broken_rules", "doubtful_rules"


@dataclass(frozen=True, slots=True)
class RowRule:
    """One thing that a good row does not do.

    Attributes:
        name: Id, for example ``minimum:ounces``.
        column: Column at fault, "" where it is the row.
        expected: What a good value looks like, for people.
        broken: Boolean expression over columns of texts, never null; a rule across rows holds all
            the rows it is given against each other (``verdicts.py`` gives it good ones).
        sql: The same in Flink SQL, "" for a rule across rows or tables.
        declared: Whether a person vouches for it; a row that breaks an inferred line is not set
            aside but shown.
        key: Columns that occur once together, () for any other rule.
        check: A rule of transactions, which sees all rows at once; None for any other.
    """

    name: str
    column: str
    expected: str
    broken: pl.Expr
    sql: str
    declared: bool
    key: tuple[str, ...] = ()
    check: TransactionCheck | None = None

    @property
    def across(self) -> bool:
        """Whether it holds rows against each other."""
        return bool(self.key) or self.check is not None


def row_rules(
    contract: Contract, tables: Mapping[str, pl.DataFrame] | None = None
) -> list[RowRule]:
    """Return every rule, in the order of the contract's columns, denials, references and keys.

    Args:
        contract: The contract.
        tables: By name, the other tables that its references name.

    Raises:
        ContractError: When another table or a column of it is not there.
    """
    columns = [rule for name, one in contract.columns.items() for rule in _column_rules(name, one)]
    kinds = {name: one.kind for name, one in contract.columns.items()}
    denials = [
        _rule(f"denial:{denial.name}", "", denial.expected or f"not: {denial.forbidden}",
              compiled(parse(denial.forbidden, kinds)))
        for denial in contract.denials
    ]  # fmt: skip
    references = [_reference_rule(one, tables or {}) for one in contract.references]
    single, across = ([one for one in columns if bool(one.key) is many] for many in (False, True))
    keys = [_unique_rule("key", key, declared=True) for key in contract.keys]
    transactions = [
        _transaction_rule(check, declared=check.line not in given.confidence)
        for given in contract.transactions
        for check in checks_of(given)
    ]
    return [*single, *denials, *references, *transactions, *across, *keys]


def flink_sql(contract: Contract, table: str, *, rows_only: bool = False) -> str:
    """Return a query that adds the rules that each row of a table breaks, "" for none.

    ``broken_rules`` are the declared ones, ``doubtful_rules`` the inferred ones; names are joined
    by commas, and a comma or percent sign within a name is written ``%2C`` or ``%25``.

    Args:
        contract: The contract.
        table: Name of the table in Flink, its columns STRING, nothing as NULL.
        rows_only: Leave out what :func:`batch_only` names.

    Raises:
        ContractError: For rules across rows or tables, which single rows cannot tell.
    """
    batch = [] if rows_only else batch_only(contract)
    if batch:
        raise ContractError(
            f"{', '.join(batch)}: rules across rows and tables run on whole tables only (penstock "
            "clean run); take them out of the contract of a stream, or ask for the rules over rows"
        )
    taken = sorted({BROKEN, DOUBTFUL} & set(contract.columns))
    if taken:
        raise ContractError(f"column {taken[0]!r} has the name of a column of verdicts; rename it")
    unsaid = [name for name in contract.columns if "\n" in name or "\r" in name]
    if unsaid:
        raise ContractError(
            f"column {unsaid[0]!r} has a line end in its name, which Flink's SQL lacks"
        )
    single = Contract(name=contract.name, columns=contract.columns, denials=contract.denials)
    rules = [rule for rule in row_rules(single) if rule.sql]
    broken = _names([rule for rule in rules if rule.declared])
    doubtful = _names([rule for rule in rules if not rule.declared])
    # Names are quoted, and conditions are made of what was read, not pasted.
    return f"SELECT *, {broken} AS {BROKEN}, {doubtful} AS {DOUBTFUL} FROM {identifier(table)}"  # noqa: S608


def batch_only(contract: Contract, *, inferred: bool = False) -> list[str]:
    """Return the names of checks that need more than single rows, or have no SQL.

    Args:
        contract: The contract.
        inferred: Whether inferred lines of columns count, too: they set no row aside.
    """
    unique, digits = (
        [
            f"{line}:{name}"
            for name, one in contract.columns.items()
            if getattr(one, line) and (inferred or line not in one.confidence)
        ]
        for line in ("unique", "check_digit")
    )
    duplicates = contract.duplicates
    lines = {
        "min_rows": bool(contract.min_rows),
        "max_rows": bool(contract.max_rows),
        "newest": bool(contract.newest),
        "label": contract.label is not None,
        "duplicates": duplicates is not None and duplicates.action == "quarantine",
        "max_quarantine_share": contract.max_quarantine_share < 1.0,
    }
    return [
        *(f"reference:{one.name}" for one in contract.references),
        *digits,
        *(f"sensor:{one.column}" for one in contract.sensors),
        *(check.name for one in contract.transactions for check in checks_of(one)),
        *unique,
        *(f"key:{'+'.join(key)}" for key in contract.keys),
        *(line for line, there in lines.items() if there),
    ]


def _names(rules: list[RowRule]) -> str:
    """Return SQL that names those of the rules that are broken."""
    if not rules:
        return "''"
    cases = (
        f"CASE WHEN {rule.sql} THEN {quoted(rule.name.replace('%', '%25').replace(',', '%2C'))} END"
        for rule in rules
    )
    return f"CONCAT_WS(',', {', '.join(cases)})"


def _rule(name: str, column: str, expected: str, broken: Both, *, declared: bool = True) -> RowRule:
    """Return a rule that is false where its condition is not known."""
    expression = broken.expr.fill_null(value=False)
    return RowRule(name, column, expected, expression, f"COALESCE({broken.sql}, FALSE)", declared)


class Make(Protocol):
    """Makes a rule of a column."""

    def __call__(self, line: str, expected: str, broken: Both) -> RowRule:
        """Return the rule of a line."""


def _column_rules(name: str, one: ColumnContract) -> Iterator[RowRule]:
    text = column(name)

    def rule(line: str, expected: str, broken: Both) -> RowRule:
        declared = line not in one.confidence
        return _rule(f"{line}:{name}", name, expected, broken, declared=declared)

    if not one.nullable:
        yield rule("nullable", "a value", Both(text.expr.is_null(), f"{text.sql} IS NULL"))
    if one.kind != "text":
        reads = readable(text, one.kind)
        unread = text.expr.is_not_null() & ~reads.expr
        sql = f"{text.sql} IS NOT NULL AND NOT ({reads.sql})"
        yield rule("kind", one.kind, Both(unread, sql))
    if one.pattern:
        yield _pattern_rule(text, one.pattern, rule)
    if one.domain:
        shown = ", ".join(one.domain[:8]) + (" …" if len(one.domain) > 8 else "")
        listed = ", ".join(quoted(value) for value in one.domain)
        outside = Both(~text.expr.is_in(one.domain), f"{text.sql} NOT IN ({listed})")
        yield rule("domain", f"one of {shown}", outside)
    if one.max_length:
        limit = one.max_length
        yield rule("max_length", f"at most {limit} characters", _longer(text, limit))
    if one.check_digit:
        yield _check_digit_rule(name, one)
    yield from _bounds(text, one, rule)
    if one.unique:
        yield _unique_rule("unique", (name,), declared="unique" not in one.confidence)


def _pattern_rule(text: Both, pattern: str, rule: Make) -> RowRule:
    read = portable(pattern)
    fits = matches(text, read.text)
    other, sql, expected = ~fits.expr, f"NOT {fits.sql}", pattern
    if read.deep:
        longer = _longer(text, MAX_DEEP_CHARACTERS)
        other |= longer.expr
        sql = f"CASE WHEN {longer.sql} THEN TRUE ELSE {sql} END"
        expected = f"{pattern}, at most {MAX_DEEP_CHARACTERS:,} characters"
    return rule("pattern", expected, Both(other, sql))


def _longer(text: Both, limit: int) -> Both:
    return Both(text.expr.str.len_chars() > limit, f"CHAR_LENGTH({text.sql}) > {limit}")


def _bounds(text: Both, one: ColumnContract, rule: Make) -> Iterator[RowRule]:
    for line, sign, bound in (("minimum", "<", one.minimum), ("maximum", ">", one.maximum)):
        if bound is None:
            continue
        value, limit, reads = _sides(text, one.kind, line, bound)
        beyond = value.expr < limit.expr if sign == "<" else value.expr > limit.expr
        words = "at least" if sign == "<" else "at most"
        broken = Both(beyond & reads.expr, f"{reads.sql} AND {value.sql} {sign} {limit.sql}")
        yield rule(line, f"{words} {bound}", broken)


def _sides(text: Both, kind: str, line: str, bound: float | str) -> tuple[Both, Both, Both]:
    """Return values and bound as they are compared, and where the values can be read."""
    always = Both(pl.lit(value=True), "TRUE")
    if isinstance(bound, str):
        # Dates of one shape compare as their texts do; moments with zones do not.
        if kind == "datetime":
            first = bound if len(bound) > len("YYYY-MM-DD") else f"{bound} 00:00:00"
            moment = instant(Both(pl.lit(first), quoted(first)))
            return instant(text), moment, always
        return text, Both(pl.lit(bound), quoted(bound)), readable(text, kind)
    if kind == "integer":
        # Of whole numbers the bound is the next whole number within it; beyond them it is moot.
        whole = math.ceil(bound) if line == "minimum" else math.floor(bound)
        if -(2**63) < whole < 2**63:
            limit = Both(pl.lit(whole, pl.Int64), f"CAST({whole} AS BIGINT)")
            return integer(text), limit, always
    number = Both(text.expr.cast(pl.Float64, strict=False), f"TRY_CAST({text.sql} AS DOUBLE)")
    return number, Both(pl.lit(float(bound)), double(float(bound))), readable(text, kind)


def _unique_rule(line: str, columns: tuple[str, ...], *, declared: bool) -> RowRule:
    several = ~pl.struct(columns).is_first_distinct()
    column = columns[0] if len(columns) == 1 else ""
    name = f"{line}:{'+'.join(columns)}"
    expected = "a value that occurs once"
    return RowRule(name, column, expected, several & filled(columns), "", declared, columns)


def _check_digit_rule(name: str, one: ColumnContract) -> RowRule:
    right = pl.col(name).map_batches(
        partial(holds, kind=one.check_digit), pl.Boolean, is_elementwise=True
    )
    broken = (~right).fill_null(value=False)
    expected = f"check digits as of {one.check_digit}"
    declared = "check_digit" not in one.confidence
    return RowRule(f"check_digit:{name}", name, expected, broken, "", declared)


def _transaction_rule(check: TransactionCheck, *, declared: bool) -> RowRule:
    """Return a rule that sees all rows at once."""

    def broken(columns: pl.Series) -> pl.Series:
        return pl.Series(check.broken(columns.struct.unnest()))

    seen = pl.struct(check.columns).map_batches(broken, pl.Boolean).fill_null(value=False)
    return RowRule(check.name, check.column, check.expected, seen, "", declared, check=check)


def _reference_rule(reference: Reference, tables: Mapping[str, pl.DataFrame]) -> RowRule:
    other = tables.get(reference.table)
    if other is None:
        there = ", ".join(tables) or "none"
        raise ContractError(
            f"reference {reference.name}: table {reference.table!r} was not given (given: "
            f"{there}); pass it as tables={{name: frame}}"
        )
    missing = [name for name in reference.to if name not in other.columns]
    if missing:
        raise ContractError(
            f"reference {reference.name}: {reference.table} has no column {missing[0]!r}; it has "
            f"{', '.join(other.columns)}"
        )
    known = (
        other.select(pl.col(name).cast(pl.String) for name in reference.to).drop_nulls().unique()
    )
    if len(reference.columns) == 1:
        found = pl.col(reference.columns[0]).is_in(known.to_series().implode())
    else:
        pairs = known.select(pl.struct(pl.all()).struct.rename_fields(list(reference.columns)))
        found = pl.struct(reference.columns).is_in(pairs.to_series().implode())
    column = reference.columns[0] if len(reference.columns) == 1 else ""
    expected = f"a value of {'+'.join(reference.to)} in {reference.table}"
    broken = (filled(reference.columns) & ~found).fill_null(value=False)
    return RowRule(f"reference:{reference.name}", column, expected, broken, "", declared=True)


def filled(columns: tuple[str, ...]) -> pl.Expr:
    """Return where something stands in every one of some columns."""
    return pl.all_horizontal(pl.col(name).is_not_null() for name in columns)
