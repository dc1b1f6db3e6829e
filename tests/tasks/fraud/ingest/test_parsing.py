"""Times, amounts, labels and numbers in every form in which people write them."""

from __future__ import annotations

import datetime as dt
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.fraud.ingest.parsing import (
    MAX_AMOUNT,
    NO_TIME,
    DataError,
    Parsed,
    parse_amounts,
    parse_labels,
    parse_numbers,
    parse_times,
    plain_array,
)

NOON = 1_522_584_000_000  # 2018-04-01T12:00:00Z


def rules(parsed: Parsed, row: int) -> set[str]:
    return {name for name, mask in parsed.problems.items() if mask[row]}


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([NOON // 1000], pa.timestamp("s")), "auto"),
        (pa.array([NOON], pa.timestamp("ms", tz="Europe/Berlin")), "auto"),
        (pa.array([NOON * 1000 + 999], pa.timestamp("us")), "auto"),
        (pa.array([NOON * 10**6], pa.timestamp("ns")), "s"),
        (pa.array(["2018-04-01T12:00:00"]), "auto"),
        (pa.array(["2018-04-01 12:00"]), "auto"),
        (pa.array(["2018-04-01T12:00:00Z"]), "auto"),
        (pa.array(["2018-04-01T14:00:00+02:00", "bad"]), "auto"),
        (pa.array(["2018-04-01T12:00:00.000999999", ""]), "auto"),
        (pa.array([NOON // 1000]), "s"),
        (pa.array([NOON // 1000], pa.uint64()), "s"),
        (pa.array([NOON / 1000]), "s"),
        (pa.array([str(NOON // 1000)]), "s"),
        (pa.array([Decimal(NOON // 1000)]), "s"),
        (pa.array([NOON]), "ms"),
        (pa.array([NOON * 1000]), "us"),
        (pa.array([NOON * 10**6]), "ns"),
        (pa.array([NOON // 60_000]), "min"),
        (pa.array([NOON // 3_600_000]), "h"),
        (pa.array([17_622.5]), "d"),
    ],
)
def test_one_instant_in_many_forms(column: pa.Array, unit: Any) -> None:
    parsed = parse_times(column, "when", unit, 0)
    assert parsed.values.dtype == np.int64
    assert parsed.values[0] == NOON
    assert rules(parsed, 0) == set()


def test_dates_count_from_midnight() -> None:
    day = dt.date(2018, 4, 1)
    for kind in (pa.date32(), pa.date64()):
        parsed = parse_times(pa.array([day, None], kind), "when", "auto", 0)
        assert parsed.values[0] == NOON - 43_200_000
        assert rules(parsed, 1) == {"missing"}


def test_origin_and_fractions() -> None:
    parsed = parse_times(pa.array([1.001, 0.0005, float("nan")]), "t", "s", 1_000)
    assert parsed.values[:2].tolist() == [2_001, 1_000]
    assert rules(parsed, 2) == {"missing"}


def test_absurd_times_do_not_wrap_around() -> None:
    for column, unit in [
        (pa.array([2**62, -(2**62)]), "s"),
        (pa.array([1e300, float("-inf")]), "ms"),
        (pa.array([2e300, -2e300]), "d"),
        (pa.array([2**62, -(2**63)], pa.timestamp("s")), "auto"),
    ]:
        parsed = parse_times(column, "t", unit, 10**12)
        assert parsed.values.tolist() == [NO_TIME, NO_TIME]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, 2]), "bare numbers .int64.: set time_unit"),
        (pa.array([1.5]), "bare numbers"),
        (pa.array(["spring", None]), "'spring'.*convert"),
        (pa.array([True]), None),
        (pa.array([[1]]), "list<item: int64>, not timestamps"),
        (pa.array([b"x"]), "binary"),
    ],
)
def test_columns_that_hold_no_times(column: pa.Array, message: str | None) -> None:
    if message is None:
        assert parse_times(column, "when", "auto", 0).values.tolist() == [1]
        return
    with pytest.raises(DataError, match=message):
        parse_times(column, "when", "auto", 0)


def test_text_and_numbers_side_by_side_in_text_columns() -> None:
    parsed = parse_numbers(pa.array([" 1.5", "", None, "NaN", "x", "1e3"]), "n")
    assert parsed.values.tolist() == [1.5, 0, 0, 0, 0, 1000]
    assert [rules(parsed, i) for i in range(6)] == [
        set(), {"missing"}, {"missing"}, {"missing"}, {"invalid"}, set(),
    ]  # fmt: skip


def test_numbers_of_unusual_width() -> None:
    assert rules(parse_numbers(pa.array([2**64 - 1], pa.uint64()), "n"), 0) == {"invalid"}
    halves = pa.array(np.array([0.5, np.nan], np.float16))
    assert parse_numbers(halves, "n").values.tolist() == [0.5, 0.0]
    assert rules(parse_numbers(pa.nulls(1), "n"), 0) == {"missing"}
    with pytest.raises(DataError, match=r"timestamp.us., not numbers"):
        parse_numbers(pa.array([0], pa.timestamp("us")), "n")


@pytest.mark.parametrize(
    ("amount", "minor"),
    [(0.0, 0), (12.34, 1234), (1.005, 100), (1.015, 102), (1.025, 102), (0.575, 58), (2.675, 268),
     (1e12, 10**14), (90_071_992.545, 9_007_199_254), (19.999, 2000)],
)  # fmt: skip
def test_major_amounts_round_half_to_even_as_decimals(amount: float, minor: int) -> None:
    assert parse_amounts(pa.array([amount]), "a", "major", 2).values.tolist() == [minor]
    text = pa.array([f"{amount!r}"])
    assert parse_amounts(text, "a", "major", 2).values.tolist() == [minor]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=50), st.integers(0, 6))
def test_rounding_equals_decimal_arithmetic(values: list[float], decimals: int) -> None:
    unit = Decimal(1)
    truth = [int(Decimal(repr(v)).scaleb(decimals).quantize(unit, ROUND_HALF_EVEN)) for v in values]
    parsed = parse_amounts(pa.array(values), "a", "major", decimals)
    good = ~parsed.problems["overflow"]
    assert parsed.values[good].tolist() == [t for t, g in zip(truth, good, strict=True) if g]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_single_precision_and_thousandths(thousandths: list[int]) -> None:
    single = np.array(thousandths, np.float32) / np.float32(1000)
    truth = [int(Decimal(str(v)).scaleb(2).quantize(Decimal(1), ROUND_HALF_EVEN)) for v in single]
    assert parse_amounts(pa.array(single), "a", "major", 2).values.tolist() == truth


def test_decimals_integers_and_minor_units() -> None:
    money = pa.array([Decimal("1.025"), Decimal("7.10"), None])
    parsed = parse_amounts(money, "a", "major", 2)
    assert parsed.values[:2].tolist() == [102, 710]
    assert rules(parsed, 2) == {"missing"}
    assert parse_amounts(pa.array([7]), "a", "major", 2).values.tolist() == [700]
    assert parse_amounts(pa.array([7], pa.int8()), "a", "minor", 2).values.tolist() == [7]
    parsed = parse_amounts(pa.array([7.0, 7.5]), "a", "minor", 2)
    assert parsed.values[0] == 7
    assert rules(parsed, 1) == {"fractional"}


def test_amounts_that_are_no_amounts() -> None:
    column = pa.array([-0.01, float("nan"), float("inf"), float("-inf"), 1e14, None, -0.001])
    parsed = parse_amounts(column, "a", "major", 2)
    assert [sorted(rules(parsed, i)) for i in range(7)] == [
        [], ["missing"], ["infinite"], ["infinite"], ["overflow"], ["missing"], []
    ]  # fmt: skip
    assert parsed.numbers[[0, 6]].tolist() == [-0.01, -0.001]
    text = parse_amounts(pa.array(["abc", "1.5"]), "a", "major", 2)
    assert rules(text, 0) == {"unparsable"}
    assert text.values[1] == 150
    big = parse_amounts(pa.array([MAX_AMOUNT, MAX_AMOUNT + 1, 2**63 - 1]), "a", "minor", 2)
    assert [sorted(rules(big, i)) for i in range(3)] == [[], ["overflow"], ["overflow"]]
    with pytest.raises(DataError, match="date32"):
        parse_amounts(pa.array([dt.date(2018, 1, 1)]), "a", "major", 2)
    with pytest.raises(DataError, match="spells no numbers"):
        parse_amounts(pa.array(["abc", "x"]), "a", "major", 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 0, None, 2]),
        pa.array([1.0, 0.0, float("nan"), 0.5]),
        pa.array(["1", "FALSE", " ", "maybe"]),
        pa.array(["true", "0.0", None, "-1"]),
        pa.array([Decimal(1), Decimal(0), None, Decimal(3)]),
    ],
)
def test_labels_in_many_forms(column: pa.Array) -> None:
    parsed = parse_labels(column, "y")
    assert parsed.values.dtype == np.int8
    assert parsed.values[:3].tolist() == [1, 0, -1]
    assert [rules(parsed, i) - {"unparsable"} for i in range(4)] == [
        set(),
        set(),
        {"missing"},
        set(),
    ]
    assert parsed.values[3] == -1
    assert parsed.numbers[3] not in {0, 1} or "unparsable" in rules(parsed, 3)


def test_booleans_and_empty_labels() -> None:
    assert parse_labels(pa.array([True, False, None]), "y").values.tolist() == [1, 0, -1]
    assert parse_labels(pa.nulls(2), "y").values.tolist() == [-1, -1]


@pytest.mark.parametrize(
    "column", [pa.array(["yes", "no"]), pa.array([2, 3]), pa.array([0], pa.timestamp("s"))]
)
def test_columns_that_hold_no_labels(column: pa.Array) -> None:
    with pytest.raises(DataError, match="'y'"):
        parse_labels(column, "y")


def test_plain_array_undoes_encodings() -> None:
    words = pa.chunked_array([["a"], ["b", "a"]]).dictionary_encode()
    assert plain_array(words).to_pylist() == ["a", "b", "a"]
    assert len(plain_array(pa.chunked_array([], pa.string()))) == 0
