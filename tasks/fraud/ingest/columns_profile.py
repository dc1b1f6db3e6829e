"""What a column looks like: its kind of content, distinct values, gaps, the words of its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.fraud.ingest.identifiers import BLANKS
from tasks.fraud.ingest.parsing import DataError, is_text, parse_numbers, parse_times, plain_array

Content = Literal["time", "number", "text", "flag", "empty", "other"]

_SAMPLE = 2_000
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Profile:
    """Profile of one column.

    Attributes:
        name: Column name.
        words: Lower-case words of the name, camel case and digits split.
        content: ``time`` (timestamps, dates, ISO text), ``number``, ``text``, ``flag`` (nothing
            but 0/1/true/false/null), ``empty`` or ``other`` (nested, binary).
        whole: Numbers without fractions.
        rows: Rows of the table.
        missing: Null values.
        distinct: Distinct values, null not counted.
        low: Smallest number, 0 for other content.
        high: Largest number.
        rising: Values never fall (numbers only).
    """

    name: str
    words: tuple[str, ...]
    content: Content
    whole: bool
    rows: int
    missing: int
    distinct: int
    low: float = 0.0
    high: float = 0.0
    rising: bool = False

    def has(self, *words: str) -> bool:
        """Tell whether the name holds one of these words."""
        return not set(words).isdisjoint(self.words)

    @property
    def unique(self) -> bool:
        """Every row has its own value."""
        return self.missing == 0 and self.distinct == self.rows

    @property
    def gaps(self) -> float:
        """Share of missing values."""
        return self.missing / max(1, self.rows)


def name_words(name: str) -> tuple[str, ...]:
    """Split a column name into lower-case words.

    >>> name_words("TransactionDT"), name_words("trans_num"), name_words("nameOrig")
    (('transaction', 'dt'), ('trans', 'num'), ('name', 'orig'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


def profile(table: pa.Table, name: str) -> Profile:
    """Profile one column of a table."""
    array = plain_array(table.column(name))
    content = _content(array, name)
    distinct = 0
    if content not in ("empty", "other"):
        distinct = pc.count_distinct(array, mode="only_valid").as_py()
    low = high = 0.0
    whole = rising = False
    if content == "number" or (content == "flag" and _is_numeric(array.type)):
        parsed = parse_numbers(array, name)
        good = ~(parsed.problems["missing"] | parsed.problems["invalid"])
        values = parsed.values[good & np.isfinite(parsed.values)]
        if len(values):
            low, high = float(values.min()), float(values.max())
            whole = bool((values == np.rint(values)).all())
            rising = bool((values[1:] >= values[:-1]).all())
    return Profile(
        name=name,
        words=name_words(name),
        content=content,
        whole=whole,
        rows=len(array),
        missing=array.null_count,
        distinct=int(distinct),
        low=low,
        high=high,
        rising=rising,
    )


def _content(array: pa.Array, name: str) -> Content:
    types = pa.types
    kind = array.type
    if types.is_null(kind) or array.null_count == len(array):
        return "empty"
    if types.is_boolean(kind):
        return "flag"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if _is_numeric(kind):
        return "flag" if _is_flag(array) else "number"
    return _text_content(array, name) if is_text(array) else "other"


def _text_content(array: pa.Array, name: str) -> Content:
    """Judge text by a sample: times, numbers and flags may come as text."""
    sample = array.drop_null().slice(0, _SAMPLE)
    words = {value.strip(BLANKS).lower() for value in sample.to_pylist()}
    if words <= {"0", "1", "true", "false", ""}:
        return "flag"
    if _mostly_read(sample, name, "number"):
        return "number"
    return "time" if _mostly_read(sample, name, "time") else "text"


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_flag(array: pa.Array) -> bool:
    values = pc.unique(array.slice(0, _SAMPLE)).drop_null().to_pylist()
    if not {float(value) for value in values} <= {0.0, 1.0}:
        return False
    everything = pc.unique(array).drop_null().to_pylist()
    return {float(value) for value in everything} <= {0.0, 1.0}


def _mostly_read(sample: pa.Array, name: str, what: Literal["number", "time"]) -> bool:
    """Tell whether at least 95 % of a text sample can be read."""
    try:
        if what == "number":
            bad = parse_numbers(sample, name).problems["invalid"]
        else:
            bad = parse_times(sample, name, "auto", 0).problems["unparsable"]
    except DataError:
        return False
    return float(bad.mean()) <= 0.05
