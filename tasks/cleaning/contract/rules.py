"""A contract compiled into rules over rows: as Polars expressions and as Flink SQL.

Both say *broken*, are true or false and never null, and read texts: a value that cannot be read as
its kind breaks one rule, ``kind``, and no other. Rules across rows (``unique``, keys,
transactions) and check digits have no SQL and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import polars as pl

from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError
from tasks.cleaning.transactions.check_digits import holds
from tasks.cleaning.transactions.checks import TransactionCheck, checks_of

NUMBER_SHAPE = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
INTEGER_SHAPE = r"^[+-]?[0-9]{1,18}$"
DATE_SHAPE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
DATETIME_SHAPE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$"
BOOLEANS = ("true", "false", "0", "1", "yes", "no")


@dataclass(frozen=True, slots=True)
class RowRule:
    """One thing that a good row does not do.

    Attributes:
        name: Id, for example ``minimum:ounces``.
        column: Column at fault, "" where it is the row.
        expected: What a good value looks like, for people.
        broken: Boolean expression over columns of texts, never null.
        sql: The same in Flink SQL, "" for a rule across rows.
        declared: Whether a person vouches for it; a row that breaks an inferred line is not set
            aside but shown.
    """

    name: str
    column: str
    expected: str
    broken: pl.Expr
    sql: str
    declared: bool


def row_rules(contract: Contract) -> list[RowRule]:
    """Return every rule, in the order of the contract's columns, then denials, then keys.

    Raises:
        ContractError: For a denial that is no SQL.
    """
    rules = [
        rule for name, column in contract.columns.items() for rule in _column_rules(name, column)
    ]
    for denial in contract.denials:
        try:
            broken = pl.sql_expr(denial.forbidden)
        except pl.exceptions.PolarsError as error:
            raise ContractError(f"denial {denial.name!r}: {error}") from None
        expected = denial.expected or f"not: {denial.forbidden}"
        sql = denial.forbidden
        rules.append(_rule(f"denial:{denial.name}", "", expected, broken, sql))
    rules += [_unique_rule("key", key, declared=True) for key in contract.keys]
    for given in contract.transactions:
        rules += [
            _across_rule(check, declared=check.line not in given.confidence)
            for check in checks_of(given)
        ]
    return rules


def flink_sql(contract: Contract, table: str) -> str:
    """Return a query that adds ``broken_rules`` to a table: the broken rules' names, "" for none.

    Args:
        contract: The contract.
        table: Name of the table in Flink, its columns STRING.

    Raises:
        ContractError: For rules across rows, which a stream of single rows cannot check.
    """
    rules = row_rules(contract)
    batch = [rule.name for rule in rules if not rule.sql]
    batch += [f"sensor:{sensor.column}" for sensor in contract.sensors]
    if batch:
        raise ContractError(
            f"{', '.join(batch)}: rules across rows, check digits and those of sensors and "
            "transactions run on whole tables only; take them out of the contract of a stream"
        )
    cases = ", ".join(f"CASE WHEN {rule.sql} THEN {_quoted(rule.name)} END" for rule in rules)
    # Names are quoted, and what a denial says is the contract author's own.
    return f"SELECT *, CONCAT_WS(',', {cases}) AS broken_rules FROM {_identifier(table)}"  # noqa: S608


def _rule(
    name: str, column: str, expected: str, broken: pl.Expr, sql: str, *, declared: bool = True
) -> RowRule:
    """Return a rule that is false where its expression is null."""
    return RowRule(
        name,
        column,
        expected,
        broken.fill_null(value=False),
        f"COALESCE({sql}, FALSE)" if sql else "",
        declared,
    )


Make = Callable[[str, str, pl.Expr, str], RowRule]


def _column_rules(name: str, column: ColumnContract) -> Iterator[RowRule]:
    text, sql = pl.col(name), _identifier(name)

    def rule(line: str, expected: str, broken: pl.Expr, query: str) -> RowRule:
        declared = line not in column.confidence
        return _rule(f"{line}:{name}", name, expected, broken, query, declared=declared)

    if not column.nullable:
        yield rule("nullable", "a value", text.is_null(), f"{sql} IS NULL")
    if column.kind != "text":
        readable, query = _readable(column, text, sql)
        filled = text.is_not_null()
        yield rule("kind", column.kind, filled & ~readable, f"{sql} IS NOT NULL AND NOT ({query})")
    if column.pattern:
        shape = f"^(?:{column.pattern})$"
        yield rule(
            "pattern",
            column.pattern,
            ~text.str.contains(shape),
            f"NOT REGEXP({sql}, {_quoted(shape)})",
        )
    if column.domain:
        shown = ", ".join(column.domain[:8]) + (" …" if len(column.domain) > 8 else "")
        listed = ", ".join(_quoted(value) for value in column.domain)
        yield rule(
            "domain", f"one of {shown}", ~text.is_in(column.domain), f"{sql} NOT IN ({listed})"
        )
    if column.max_length:
        limit = column.max_length
        yield rule(
            "max_length", f"at most {limit} characters", text.str.len_chars() > limit,
            f"CHAR_LENGTH({sql}) > {limit}",
        )  # fmt: skip
    if column.check_digit:
        right = text.map_batches(
            partial(holds, kind=column.check_digit), pl.Boolean, is_elementwise=True
        )
        yield rule("check_digit", f"check digits as of {column.check_digit}", ~right, "")
    yield from _bounds(name, column, rule)
    if column.unique:
        yield _unique_rule("unique", (name,), declared="unique" not in column.confidence)


def _readable(column: ColumnContract, text: pl.Expr, sql: str) -> tuple[pl.Expr, str]:
    if column.kind == "boolean":
        listed = ", ".join(_quoted(value) for value in BOOLEANS)
        return text.str.to_lowercase().is_in(BOOLEANS), f"LOWER({sql}) IN ({listed})"
    shape = {
        "integer": INTEGER_SHAPE,
        "decimal": NUMBER_SHAPE,
        "date": DATE_SHAPE,
        "datetime": DATETIME_SHAPE,
    }[column.kind]
    matches, query = text.str.contains(shape), f"REGEXP({sql}, {_quoted(shape)})"
    if column.kind in {"integer", "decimal"}:
        return matches, query
    day = text.str.slice(0, 10).str.strptime(pl.Date, "%Y-%m-%d", strict=False).is_not_null()
    date = f"TRY_CAST(SUBSTRING({sql} FROM 1 FOR 10) AS DATE) IS NOT NULL"
    if column.kind == "date":
        return matches & day, f"{query} AND {date}"
    clock = text.str.slice(11, 8).str.strptime(pl.Time, "%H:%M:%S", strict=False).is_not_null()
    time = f"TRY_CAST(SUBSTRING({sql} FROM 12 FOR 8) AS TIME) IS NOT NULL"
    return matches & day & clock, f"{query} AND {date} AND {time}"


def _bounds(name: str, column: ColumnContract, rule: Make) -> Iterator[RowRule]:
    text, sql = pl.col(name), _identifier(name)
    for line, sign, bound in (("minimum", "<", column.minimum), ("maximum", ">", column.maximum)):
        if bound is None:
            continue
        if isinstance(bound, str):
            # ISO texts compare as their dates do.
            value, limit, query = text, pl.lit(bound), f"{sql} {sign} {_quoted(bound)}"
        else:
            value, limit = text.cast(pl.Float64, strict=False), pl.lit(float(bound))
            query = f"TRY_CAST({sql} AS DOUBLE) {sign} {float(bound)!r}"
        readable, known = (
            _readable(column, text, sql) if column.kind != "text" else (pl.lit(value=True), "")
        )
        broken = (value < limit if sign == "<" else value > limit) & readable
        words = "at least" if sign == "<" else "at most"
        yield rule(line, f"{words} {bound}", broken, f"{known} AND {query}" if known else query)


def _unique_rule(line: str, columns: tuple[str, ...], *, declared: bool) -> RowRule:
    several = pl.struct(columns).is_duplicated() & ~pl.struct(columns).is_first_distinct()
    filled = pl.all_horizontal(pl.col(name).is_not_null() for name in columns)
    column = columns[0] if len(columns) == 1 else ""
    name = f"{line}:{'+'.join(columns)}"
    return _rule(name, column, "a value that occurs once", several & filled, "", declared=declared)


def _across_rule(check: TransactionCheck, *, declared: bool) -> RowRule:
    """Return a rule that sees all rows at once."""

    def broken(columns: pl.Series) -> pl.Series:
        return pl.Series(check.broken(columns.struct.unnest()))

    seen = pl.struct(check.columns).map_batches(broken, pl.Boolean)
    return _rule(check.name, check.column, check.expected, seen, "", declared=declared)


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
