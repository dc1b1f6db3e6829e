"""Texts read as values, in Polars and in Flink SQL alike: null where they cannot be read.

What each kind looks like is said by one regular expression (dates with the days of every month), so
that no engine's own idea of a date or number decides. Numbers are 64-bit floats, whole numbers
64-bit integers; a number beyond them is none. Date texts compare as dates do. Date-times are
instants in microseconds; without a zone they are taken as UTC.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

INTEGER = r"\A[+-]?[0-9]+\z"
NUMBER = r"\A[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\z"
_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_OFFSET = r"[+-](?:0[0-9]|1[0-4]):[0-5][0-9]"
DATE = rf"\A{_DAY}\z"
DATETIME = rf"\A{_DAY}[ T]{_CLOCK}(?:\.[0-9]{{1,6}})?(?:Z|{_OFFSET})?\z"
_HAS_OFFSET = rf"{_OFFSET}\z"
YES = r"\A(?:1|[Tt][Rr][Uu][Ee]|[Yy][Ee][Ss])\z"
NO = r"\A(?:0|[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo])\z"
BOOLEAN = r"\A(?:[01]|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo])\z"
SHAPES = {"date": DATE, "datetime": DATETIME, "boolean": BOOLEAN}
LARGEST = 1.7976931348623157e308


class Both(NamedTuple):
    """The same value, condition or column in both engines."""

    expr: pl.Expr
    sql: str


def column(name: str) -> Both:
    """Return a column of texts."""
    return Both(pl.col(name), identifier(name))


def identifier(name: str) -> str:
    """Return a name as Flink SQL quotes it."""
    return "`" + name.replace("`", "``") + "`"


def quoted(text: str) -> str:
    """Return a text as SQL quotes it."""
    return "'" + text.replace("'", "''") + "'"


def double(number: float) -> str:
    """Return a number as a DOUBLE of SQL: without an exponent it would be a DECIMAL."""
    text = repr(float(number))
    return text if "e" in text else f"{text}E0"


def matches(text: Both, shape: str) -> Both:
    """Return whether texts contain a match of a shape that Rust and Java read alike."""
    return Both(text.expr.str.contains(shape), f"REGEXP({text.sql}, {quoted(shape)})")


def readable(text: Both, kind: str) -> Both:
    """Return whether texts can be read as a kind; of missing ones null or false."""
    if kind == "integer":
        return Both(integer(text).expr.is_not_null(), f"{integer(text).sql} IS NOT NULL")
    if kind == "decimal":
        # One reading and no shape: Polars reads as numbers just what NUMBER says, and inf and nan.
        return Both(
            _float(text).is_finite().fill_null(value=False), f"{decimal(text).sql} IS NOT NULL"
        )
    return matches(text, SHAPES[kind])


def read(text: Both, kind: str) -> Both:
    """Return the values of texts of a kind; of dates the text, of text itself."""
    made = {"integer": integer, "decimal": decimal, "datetime": instant, "boolean": truth}
    if kind == "text":
        return text
    return _where(matches(text, DATE), text) if kind == "date" else made[kind](text)


def integer(text: Both) -> Both:
    """Return whole numbers, BIGINT."""
    shown = (
        f"CASE WHEN REGEXP({text.sql}, {quoted(INTEGER)}) THEN TRY_CAST({text.sql} AS BIGINT) END"
    )
    return Both(text.expr.cast(pl.Int64, strict=False), shown)


def decimal(text: Both) -> Both:
    """Return numbers, DOUBLE."""
    number = _float(text)
    value = f"TRY_CAST({text.sql} AS DOUBLE)"
    shape = f"REGEXP({text.sql}, {quoted(NUMBER)})"
    return Both(
        pl.when(number.is_finite()).then(number),
        f"CASE WHEN {shape} AND ABS({value}) <= {double(LARGEST)} THEN {value} END",
    )


def _float(text: Both) -> pl.Expr:
    return text.expr.cast(pl.Float64, strict=False)


def truth(text: Both) -> Both:
    """Return booleans."""
    no, yes = matches(text, NO), matches(text, YES)
    return Both(
        pl.when(yes.expr).then(pl.lit(value=True)).when(no.expr).then(pl.lit(value=False)),
        f"CASE WHEN {yes.sql} THEN TRUE WHEN {no.sql} THEN FALSE END",
    )


def instant(text: Both) -> Both:
    """Return date-times as instants in UTC, TIMESTAMP(6)."""
    day, sql = text.expr, text.sql
    plain = pl.concat_str(day.str.slice(0, 10), pl.lit("T"), day.str.slice(11, 8))
    read_as = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False, cache=False)
    digits = day.str.extract(r"\.([0-9]+)").str.pad_end(6, "0").cast(pl.Int64, strict=False)
    parts = day.str.extract_groups(r"([+-])([0-9]{2}):([0-9]{2})\z")
    hours, minutes = (
        parts.struct.field(place).cast(pl.Int64, strict=False).fill_null(0) for place in ("2", "3")
    )
    sign = pl.when(parts.struct.field("1") == "-").then(-1).otherwise(1)
    offset = pl.duration(minutes=sign * (hours * 60 + minutes), time_unit="us")
    moment = read_as + pl.duration(microseconds=digits.fill_null(0), time_unit="us") - offset
    fraction = f"COALESCE(REGEXP_EXTRACT({sql}, '\\.[0-9]+', 0), '')"
    whole = (
        f"CONCAT(SUBSTRING({sql} FROM 1 FOR 10), ' ', SUBSTRING({sql} FROM 12 FOR 8), {fraction})"
    )
    cast = f"TRY_CAST({whole} AS TIMESTAMP(6))"
    end = f"SUBSTRING({sql} FROM CHAR_LENGTH({sql})"
    ahead = (
        f"(TRY_CAST({end} - 4 FOR 2) AS INT) * 60 + TRY_CAST({end} - 1 FOR 2) AS INT)) "
        f"* CASE WHEN {end} - 5 FOR 1) = '-' THEN 1 ELSE -1 END"
    )
    shape, offset_shape = matches(text, DATETIME), matches(text, _HAS_OFFSET)
    return Both(
        pl.when(shape.expr).then(moment),
        f"CASE WHEN {shape.sql} AND {offset_shape.sql} THEN TIMESTAMPADD(MINUTE, {ahead}, {cast}) "
        f"WHEN {shape.sql} THEN {cast} END",
    )


def midnight(day: Both) -> Both:
    """Return the first instant of days that are ISO texts."""
    return Both(
        day.expr.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False, cache=False),
        f"TRY_CAST(CONCAT({day.sql}, ' 00:00:00') AS TIMESTAMP(6))",
    )


def _where(condition: Both, value: Both) -> Both:
    return Both(
        pl.when(condition.expr).then(value.expr), f"CASE WHEN {condition.sql} THEN {value.sql} END"
    )
