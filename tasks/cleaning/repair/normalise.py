"""Normalisers: the same meaning written the contract's way; nothing is guessed.

Each step is an expression over one column of texts, so that it runs on eager, lazy and streamed
frames alike. In this order: blanks around, codes of missing values, units and scales of numbers,
whole numbers, dates into ISO form, spellings of a domain that differ in case or blanks only, and a
second column's value glued to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.profile.units import SYMBOL

VERSION = "normalise/1"
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
OBSERVED, VALUE = "observed", "value"
"""Names of a column's texts while it is rewritten, whatever its own name."""
EXACT_DIGITS = 15
"""Digits that a float of 64 bits holds."""
NOISE = r"^[+-]?[0-9]*\.[0-9]{3,}(?:0{6,}|9{6,})[0-9]{1,2}$"
"""A fraction that ends in a long run of zeros or nines and one or two other digits."""
SMALLEST_NOISY = 1e-3
BLANKS = r"[\s\u00a0\u200b\ufeff]+"
BLANK_CHARACTERS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200C))
)
"""What ``BLANKS`` matches, one by one."""
GLUED = r"^(.*[^\s,;/-])[\s,;/-]+(\S+)$"
"""What stands before the last word, and that word."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rewriting of a column.

    Attributes:
        rule: Id in findings.
        expression: New text of every value, null where it is missing.
        expected: What a value should look like, for people.
        premise: Why the meaning stays.
        touches: Cheap condition that holds for every value that would be rewritten, and for few
            others.
    """

    rule: str
    expression: pl.Expr
    expected: str
    premise: str
    touches: pl.Expr


def normalisers(name: str, column: ColumnContract) -> list[Step]:
    """Return a column's rewritings in their order, each to be applied to what the last one left."""
    steps = [_blank(name)]
    if column.missing:
        steps.append(_missing(name, column.missing))
    if column.is_number:
        for spelling, factor in _units(column).items():
            steps.append(_unit(name, spelling, factor, column.unit))
        if column.kind == "integer":
            steps.append(_whole(name))
    if column.formats:
        steps.append(_dates(name, column))
    if column.domain:
        steps.append(_spelling(name, column.domain))
    return steps


def normalise(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Find every cell that is written otherwise than the contract has it.

    Args:
        frame: Texts, one column for each of the contract's.
        contract: The contract.

    Returns:
        Findings with suggestions; where several steps concern a cell, the suggestion is the last
        one's and the rule names all of them.
    """
    alone = joined(
        found
        for name, column in contract.columns.items()
        for found in _column_findings(frame, name, column, contract.detector_version)
    )
    # Both halves of a glued value move together, so it waits where either column has a rewriting.
    parts = [alone]
    for name, column in contract.columns.items():
        if column.suffix_of:
            busy = alone.filter(pl.col("column").is_in([name, column.suffix_of]))["row"]
            free = ~pl.col("row").is_in(busy.implode())
            parts += [
                found.filter(free) for found in _glued(frame, name, column.suffix_of, contract)
            ]
    return joined(parts)


def _column_findings(
    frame: pl.DataFrame, name: str, column: ColumnContract, version: str
) -> Iterator[pl.DataFrame]:
    steps = normalisers(VALUE, column)
    touched = pl.any_horizontal(step.touches for step in steps).fill_null(value=False)
    few = frame.select(pl.col(name).alias(VALUE)).with_row_index("row").filter(touched)
    if few.is_empty():
        return
    after = few.lazy().with_columns(pl.col(VALUE).alias(OBSERVED))
    for i, step in enumerate(steps):
        rewritten = pl.col("_next").ne_missing(pl.col(VALUE))
        after = after.with_columns(step.expression.alias("_next")).with_columns(
            pl.when(rewritten).then(pl.lit(step.rule)).alias(f"rule {i}"),
            pl.when(rewritten).then(pl.lit(step.premise)).alias(f"premise {i}"),
            pl.col("_next").alias(VALUE),
        )
    cells = (
        after.filter(pl.col(VALUE).ne_missing(pl.col(OBSERVED)))
        .select(
            "row",
            pl.col(OBSERVED).alias("observed"),
            pl.col(VALUE).alias("suggestion"),
            _said("rule", len(steps), "+"),
            _said("premise", len(steps), "; "),
        )
        .collect()
    )
    if cells.is_empty():
        return
    yield findings_of(
        cells.with_columns(pl.lit(value=True).alias("repairable")),
        column=name,
        expected=_expected(column),
        confidence=1.0,
        detector_version=f"{VERSION} {version}",
    )


def _said(what: str, steps: int, between: str) -> pl.Expr:
    """Return what the steps that rewrote a value say, each once."""
    told = pl.concat_list(f"{what} {i}" for i in range(steps)).list.drop_nulls()
    return told.list.unique(maintain_order=True).list.join(between).alias(what)


def _expected(column: ColumnContract) -> str:
    words: list[str] = [column.kind]
    if column.unit:
        words.append(f"in {column.unit}")
    if column.domain:
        words.append(f"one of {', '.join(column.domain[:8])}")
    return " ".join(words)


def _blank(name: str) -> Step:
    text = pl.col(name).str.strip_chars(BLANK_CHARACTERS)
    return Step(
        "blank",
        # Nothing but blanks is nothing: a CSV cannot tell it from a missing value.
        pl.when(text != "").then(text),
        "no blanks around",
        "blanks around carry no meaning",
        (pl.col(name) == "") | (text != pl.col(name)),
    )


def _missing(name: str, codes: tuple[str, ...]) -> Step:
    text = pl.col(name)
    expression = pl.when(text.is_in(codes)).then(None).otherwise(text)
    shown = ", ".join(repr(code) for code in codes)
    premise = f"{shown}: declared as missing"
    return Step("missing-code", expression, "a value or nothing", premise, text.is_in(codes))


def _units(column: ColumnContract) -> dict[str, float]:
    """Return spellings with factors, the longest first: "ounces" before "ounce"."""
    units = dict.fromkeys(column.unit_spellings, 1.0) | dict(column.scales)
    return dict(sorted(units.items(), key=lambda item: -len(item[0])))


def _unit(name: str, spelling: str, factor: float, unit: str) -> Step:
    text = pl.col(name)
    found = text.str.extract(f"^({NUMBER})\\s*{re.escape(spelling)}$")
    number = tidied(found) if factor == 1.0 else shortest(found, factor)
    expression = pl.coalesce([number, text])
    rule = "unit" if factor == 1.0 else "scale"
    times = "" if factor == 1.0 else f", {factor:g} times"
    premise = f"{spelling!r} means {unit or 'the unit'}{times}"
    return Step(rule, expression, "a number", premise, text.str.ends_with(spelling))


def tidied(number: pl.Expr) -> pl.Expr:
    """Return texts of numbers without a plus and zeros that end a fraction, digit for digit.

    But for the noise of binary fractions: ``0.06700000000000001`` is somebody's ``0.067``.
    """
    value = number.cast(pl.Float64, strict=False).round(12)
    is_noise = number.str.contains(NOISE) & (value.abs() >= SMALLEST_NOISY)
    plain = pl.when(is_noise).then(value.cast(pl.String)).otherwise(number)
    whole = plain.str.replace(r"^\+", "").str.replace(r"^(-?[0-9]+)\.0*$", "${1}")
    short = whole.str.replace(r"^(-?[0-9]*\.[0-9]*[1-9])0+$", "${1}")
    return short.str.replace(r"^(-?)\.", "${1}0.")


def shortest(number: pl.Expr, factor: float) -> pl.Expr:
    """Return texts of numbers times a factor, null where a float would not hold the digits."""
    exact = number.str.replace_all(r"[^0-9]", "").str.len_chars() <= EXACT_DIGITS
    value = (number.cast(pl.Float64, strict=False) * factor).round(12)
    text = value.cast(pl.String)
    whole = (value == value.round(0)) & (value.abs() < 10.0**EXACT_DIGITS)
    text = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
    return pl.when(exact & value.is_finite() & ~text.str.contains("e")).then(text)


def _whole(name: str) -> Step:
    text = pl.col(name)
    expression = text.str.replace(r"^([+-]?\d+)\.0*$", "$1")
    return Step(
        "whole-number",
        expression,
        "a whole number",
        "nothing stands after the point",
        text.str.contains(".", literal=True),
    )


def _dates(name: str, column: ColumnContract) -> Step:
    text = pl.col(name)
    reads = [_read_date(text, form, column.kind) for form in column.formats]
    # %Y takes short years, too: 24 is not the year 24.
    read = pl.when(text.str.contains(YEAR)).then(pl.coalesce(reads))
    written = pl.coalesce([read, text])
    premise = f"read as {', '.join(column.formats)}"
    return Step("date-format", written, "a date in ISO form", premise, written != text)


def _read_date(text: pl.Expr, form: str, kind: str) -> pl.Expr:
    """Return texts of a format in ISO form; moments with an offset in UTC, and they say so."""
    if kind == "date":
        return text.str.to_date(form, strict=False, exact=True).dt.to_string("%Y-%m-%d")
    shape = "%Y-%m-%dT%H:%M:%S%.f"
    if "%z" in form or "%:z" in form:
        zoned = text.str.to_datetime(
            form, time_unit="us", time_zone="UTC", strict=False, exact=True
        )
        return zoned.dt.to_string(f"{shape}Z")
    read = text.str.to_datetime(form, time_unit="us", strict=False, exact=True)
    return read.dt.to_string(shape)


YEAR = r"(?:^|[^0-9])[0-9]{4}(?:[^0-9]|$)|^[0-9]{8}$"
"""A text with the four digits of a year."""


def _spelling(name: str, domain: tuple[str, ...]) -> Step:
    text = pl.col(name)
    keys: dict[str, list[str]] = {}
    for value in domain:
        keys.setdefault(_key(value), []).append(value)
    known: Mapping[str, str] = {key: v[0] for key, v in keys.items() if len(v) == 1}
    key = text.str.to_lowercase().str.replace_all(BLANKS, " ")
    written = key.replace_strict(known, default=None, return_dtype=pl.String)
    # MW is no other spelling of mW.
    wrong = ~text.is_in(domain) & written.is_not_null() & ~text.str.contains(SYMBOL)
    expression = pl.when(wrong).then(written).otherwise(text)
    premise = "differs in case and blanks only"
    return Step("spelling", expression, "a known value", premise, ~text.is_in(domain))


def _key(value: str) -> str:
    return re.sub(BLANKS, " ", value.lower())


def ends_in(frame: pl.DataFrame, name: str, other: str, contract: Contract) -> NDArray[np.bool_]:
    """Return the rows in which a column ends in the other one's value, missing over there [rows].

    The other column's values are its domain, or all that stand in the frame.
    """
    known = contract.columns[other].domain or tuple(
        frame[other].drop_nulls().unique().sort().to_list()
    )
    empty = pl.col(other).is_null() | pl.col(other).is_in([*contract.columns[other].missing, ""])
    ends = pl.col(name).str.extract(GLUED, 2).is_in(known)
    mask = frame.select((empty & ends).fill_null(value=False).alias("ends"))["ends"]
    return np.asarray(mask.to_numpy(), np.bool_)


def _glued(
    frame: pl.DataFrame, name: str, other: str, contract: Contract
) -> Iterator[pl.DataFrame]:
    """Take the other column's value off the end of this one where it is missing over there."""
    cells = (
        pl.DataFrame({"observed": frame[name], "_other": frame[other]})
        .with_row_index("row")
        .filter(pl.Series(ends_in(frame, name, other, contract)))
        .with_columns(
            pl.col("observed").str.extract(GLUED, 1).alias("_rest"),
            pl.col("observed").str.extract(GLUED, 2).alias("_end"),
        )
    )
    shared = {
        "rule": "glued",
        "premise": f"{other} is missing and its value stands at the end of {name}",
        "confidence": 1.0,
        "detector_version": f"{VERSION} {contract.detector_version}",
    }
    yield findings_of(
        cells.select("row", "observed", pl.col("_rest").alias("suggestion")),
        column=name,
        expected=f"{name} without {other}",
        **shared,
    )
    yield findings_of(
        cells.select("row", pl.col("_other").alias("observed"), pl.col("_end").alias("suggestion")),
        column=other,
        expected=f"the {other} at the end of {name}",
        **shared,
    )
