"""Conditions as Polars expressions and as Flink SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase, ascii_uppercase

import polars as pl

from tasks.cleaning.contract.conditions import Node
from tasks.cleaning.contract.patterns import SPECIAL
from tasks.cleaning.contract.values import (
    LARGEST,
    Both,
    column,
    double,
    instant,
    matches,
    midnight,
    quoted,
    read,
)

CALCULATED = frozenset({"+", "-", "*", "/", "negative", "abs"})


def compiled(node: Node) -> Both:
    """Return a parsed condition for both engines; null where it is not known."""
    if node.op == "column":
        return read(column(node.value), node.kind)
    if node.op == "literal":
        return _literal(node)
    if node.op == "null":
        # Of a column: whether anything stands there, readable or not.
        part = node.parts[0]
        text = column(part.value) if part.op == "column" else compiled(part)
        return Both(text.expr.is_null(), f"({text.sql} IS NULL)")
    if node.op in COMPARED:
        left, right = (_finite(part) for part in node.parts)
        return Both(COMPARED[node.op](left.expr, right.expr), f"({left.sql} {node.op} {right.sql})")
    return OPERATIONS[node.op](node, *(compiled(part) for part in node.parts))


def _literal(node: Node) -> Both:
    if node.kind in {"text", "date"}:
        return Both(pl.lit(node.value), quoted(node.value))
    if node.kind == "boolean":
        return Both(pl.lit(node.value == "TRUE"), node.value)
    if node.kind == "integer":
        return Both(pl.lit(int(node.value), pl.Int64), f"CAST({node.value} AS BIGINT)")
    if node.kind == "decimal":
        return Both(pl.lit(float(node.value)), double(float(node.value)))
    return instant(Both(pl.lit(node.value), quoted(node.value)))


def _finite(node: Node) -> Both:
    """Return a side of a comparison: what grew beyond all numbers is not known."""
    both = compiled(node)
    if node.op not in CALCULATED:
        return both
    return Both(
        pl.when(both.expr.is_finite()).then(both.expr),
        f"CASE WHEN ABS({both.sql}) <= {double(LARGEST)} THEN {both.sql} END",
    )


COMPARED: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _quotient(_: Node, a: Both, b: Both) -> Both:
    divisor = pl.when(b.expr != 0.0).then(b.expr)
    return Both(a.expr / divisor, f"({a.sql} / NULLIF({b.sql}, {double(0.0)}))")


def _days(_: Node, a: Both, b: Both) -> Both:
    later, earlier = (
        side.expr.str.to_date("%Y-%m-%d", strict=False, cache=False) for side in (a, b)
    )
    sql = f"TIMESTAMPDIFF(DAY, TRY_CAST({b.sql} AS DATE), TRY_CAST({a.sql} AS DATE))"
    return Both((later - earlier).dt.total_days(), f"CAST({sql} AS BIGINT)")


def _like(node: Node, a: Both) -> Both:
    shape = "".join(
        {"%": "(?s:.*)", "_": "(?s:.)"}.get(c, f"\\{c}" if c in SPECIAL else c) for c in node.value
    )
    return matches(a, f"\\A{shape}\\z")


def _letters(node: Node, a: Both) -> Both:
    """Change the case of A to Z: the engines know different versions of Unicode."""
    pair = (ascii_uppercase, ascii_lowercase)
    old, new = pair if node.op == "lower" else pair[::-1]
    return Both(
        a.expr.str.replace_many(list(old), list(new)),
        f"TRANSLATE({a.sql}, {quoted(old)}, {quoted(new)})",
    )


OPERATIONS: Mapping[str, Callable[..., Both]] = {
    "and": lambda _, a, b: Both(a.expr & b.expr, f"({a.sql} AND {b.sql})"),
    "or": lambda _, a, b: Both(a.expr | b.expr, f"({a.sql} OR {b.sql})"),
    "not": lambda _, a: Both(~a.expr, f"(NOT {a.sql})"),
    "+": lambda _, a, b: Both(a.expr + b.expr, f"({a.sql} + {b.sql})"),
    "-": lambda _, a, b: Both(a.expr - b.expr, f"({a.sql} - {b.sql})"),
    "*": lambda _, a, b: Both(a.expr * b.expr, f"({a.sql} * {b.sql})"),
    "/": _quotient,
    "days": _days,
    "negative": lambda _, a: Both(-a.expr, f"(-{a.sql})"),
    "abs": lambda _, a: Both(a.expr.abs(), f"ABS({a.sql})"),
    "char_length": lambda _, a: Both(
        a.expr.str.len_chars().cast(pl.Int64), f"CAST(CHAR_LENGTH({a.sql}) AS BIGINT)"
    ),
    "lower": _letters,
    "upper": _letters,
    "trim": lambda _, a: Both(a.expr.str.strip_chars(" "), f"TRIM({a.sql})"),
    "coalesce": lambda _, a, b: Both(pl.coalesce(a.expr, b.expr), f"COALESCE({a.sql}, {b.sql})"),
    "decimal": lambda _, a: Both(a.expr.cast(pl.Float64), f"CAST({a.sql} AS DOUBLE)"),
    "midnight": lambda _, a: midnight(a),
    "like": _like,
    "cast": lambda node, a: read(a, node.kind),
}
