"""The SQL of denials: read with the columns' kinds, refused at load where engines would differ."""

from __future__ import annotations

import polars as pl
import pytest

from tasks.cleaning.contract.condition_rules import compiled
from tasks.cleaning.contract.conditions import ConditionError, parse

KINDS = {
    "id": "integer", "price": "decimal", "left": "date", "arrived": "date", "at": "datetime",
    "paid": "boolean", "word": "text",
}  # fmt: skip
ROW = {
    "id": "9", "price": "10.5", "left": "2026-11-09", "arrived": "2026-11-10",
    "at": "2026-11-10T01:00:00+02:00", "paid": "Yes", "word": "12",
}  # fmt: skip


def told(condition: str, **changes: str | None):
    frame = pl.DataFrame([ROW | changes], schema=dict.fromkeys(ROW, pl.String))
    return frame.select(compiled(parse(condition, KINDS)).expr.alias("told")).item()


@pytest.mark.parametrize(
    "condition",
    [
        "id < price",  # as texts it would not be
        '"left" < arrived',
        "`left` < arrived AND NOT arrived < left",
        "arrived - left = 1",
        "at < arrived",  # 23:00 UTC the day before
        "at > left",
        "paid",
        "paid = 'true' and word = '12'",
        "id = '9' AND id = 9.0 AND id IN ('9', 3)",
        "id * 2 + 1 - 4 / 2 = 17",
        "- id < -8 AND ABS(-id) = 9",
        "TRY_CAST(word AS DOUBLE) > id",
        "left = DATE '2026-11-09' AND left = '2026-11-09'",
        "at = TIMESTAMP '2026-11-09 23:00:00'",
        "word LIKE '1_' AND word NOT LIKE '1' AND word LIKE '%'",
        "price BETWEEN 10 AND 11 AND id NOT BETWEEN 1 AND 2",
        "COALESCE(word, 'x') <> 'x' OR FALSE",
        "CHAR_LENGTH(word) = 2",
        "id != 8 AND (id = 8 OR NOT id = 8)",
    ],
)
def test_columns_compare_as_what_they_are(condition):
    assert told(condition) is True


def test_what_is_not_known_forbids_nothing():
    assert told("id < price", id="x") is None
    assert told("NOT id < price", id=None) is None
    assert told("id / (id - 9) > 0") is None
    assert told("price * 1e308 > 1") is None
    assert told("id IS NULL", id="x") is False  # there, but no number: the rule kind tells of it
    assert told("id IS NULL OR id > 3", id=None) is True


@pytest.mark.parametrize(
    ("condition", "wrong"),
    [
        ("id =", "'the end' stands where a value should"),
        ("id", "no condition; compare it"),
        ("ids = 1", "'ids' is no column; there are id, price"),
        ('word = "x"', "texts stand in 'single' quotes"),
        ("word > 3", "'word' is of kind 'text'.*TRY_CAST"),
        ("word < 'b'", "orders values of kind 'text'"),
        ("word + 1 = 2", "no number"),
        ("left = 'soon'", "'soon' is compared with a value of kind 'date' and is none"),
        ("paid = 'perhaps'", "is none"),
        ("left < price", "of kind 'date' and 'price' of kind 'decimal'"),
        ("SUBSTRING(word) = 'a'", "SUBSTRING is not known to all engines; known: ABS"),
        ("paid RLIKE 'a'", "'RLIKE' stands where the end, AND or OR should"),
        ("id = 1; DROP TABLE t", "'; DROP TABLE t' is not read"),
        ("id = 1e999", "no 64-bit number"),
        ("word LIKE word", "LIKE compares"),
        ("CAST(id AS DATE) = left", "only texts are cast"),
        ("CAST(word AS INT) = 1", "one of DOUBLE, BIGINT"),
        ("id IN ()", "a value should"),
        ("(" * 40 + "id" + ")" * 40 + " = 1", "within one another"),
        ("id" + " + 1" * 40 + " = 1", "more than 30 terms"),
        ("id = 1 OR " * 2_000 + "id = 2", "at most 10,000"),
    ],
)
def test_what_engines_do_not_share_is_refused(condition, wrong):
    with pytest.raises(ConditionError, match=wrong):
        parse(condition, KINDS)


def test_a_long_list_is_no_deep_tree():
    listed = ", ".join(str(i) for i in range(1_500))
    assert told(f"id IN ({listed})") is True
