"""Verdicts over typed columns are those over the same columns as texts."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.contract.model import ColumnContract, Contract, Denial, Reference
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.contract.typed import ReadColumn, repeats, typed_verdict
from tasks.cleaning.transactions.model import TransactionRules

small = st.integers(-3, 3)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pl.Int8: small,
    pl.Int64: small | st.integers(-(2**63), 2**63 - 1),
    pl.UInt64: st.integers(0, 4) | st.integers(0, 2**64 - 1),
    pl.Float64: small.map(float) | st.floats(),
    pl.Float32: st.floats(width=32),
    pl.Boolean: st.booleans(),
    pl.String: st.sampled_from(["0", "1", "01", "-1", "2.5", "x", "", "true", "2020-02-30"]),
    pl.Datetime("ms"): st.datetimes(datetime(2019, 12, 30), datetime(2020, 1, 3)).map(  # noqa: DTZ001
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ),
    pl.Datetime("us"): st.datetimes(datetime(1, 1, 1)),  # noqa: DTZ001
    pl.Date: st.dates(date(2019, 12, 30), date(2020, 1, 3)),
}
KINDS = {
    pl.Date: ["text", "date", "datetime"],
    pl.Datetime("ms"): ["text", "date", "datetime"],
    pl.Datetime("us"): ["text", "date", "datetime"],
}
NUMBERS = [0.1, 0.5, 1e19, -1e19, 2.0**63, 2**63 - 1, 2**53 + 1, -(2**63), -(10**30)]
BOUNDS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-2, 2) | st.sampled_from(NUMBERS),
    "decimal": st.integers(-2, 2) | st.sampled_from(NUMBERS),
    "date": st.sampled_from(["2020-01-01", "2020-01-02"]),
    "datetime": st.sampled_from(
        ["2020-01-01", "2020-01-02T12:00:00.0005", "2020-01-01 23:00:00.25-05:30",
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "1969-12-31T23:59:59.9Z"]
    ),
}  # fmt: skip


@st.composite
def columns(draw: st.DrawFn) -> tuple[pl.Series, ColumnContract]:
    kind = draw(st.sampled_from(list(VALUES)))
    values = draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=8))
    lines: dict[str, Any] = {
        "nullable": draw(st.booleans()),
        "unique": draw(st.booleans()),
        "max_length": draw(st.sampled_from([0, 1, 3])),
        "pattern": draw(st.sampled_from(["", "-?[0-9]+", "true|1"])),
        "domain": draw(
            st.sampled_from(
                [(), ("0", "1"), ("1", "-1", "true", str(-(2**63))), ("01", "1.0", "-0")]
            )
        ),
        "kind": draw(st.sampled_from(KINDS.get(kind, ["text", "integer", "decimal", "boolean"]))),
    }
    if lines["kind"] in BOUNDS:
        low, high = (draw(st.none() | BOUNDS[lines["kind"]]) for _ in range(2))
        if low is not None and high is not None and low > high:
            low, high = high, low
        lines["minimum"], lines["maximum"] = low, high
    return pl.Series("a", values, kind), ColumnContract(**lines)


def by_texts(contract: Contract, frame: pl.DataFrame) -> dict[str, list[bool]]:
    texts = frame.select(pl.all().cast(pl.String))
    return {
        rule.name: texts.select(rule.broken).to_series().to_list() for rule in row_rules(contract)
    }


@given(columns())
@settings(max_examples=250, deadline=None)
def test_verdicts_over_types_are_those_over_texts(drawn: tuple[pl.Series, ColumnContract]) -> None:
    values, column = drawn
    contract = Contract(name="t", columns={"a": column})
    read = {"a": ReadColumn(values)}
    wanted = by_texts(contract, values.to_frame())
    for rule in row_rules(contract):
        assert typed_verdict(rule, contract, read).tolist() == wanted[rule.name], rule.name


@given(st.lists(st.tuples(st.none() | small, st.none() | small), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_keys_and_denials_over_types_are_those_over_texts(
    rows: list[tuple[int | None, int | None]],
) -> None:
    frame = pl.DataFrame(rows, {"a": pl.Int64, "b": pl.Int64}, orient="row")
    contract = Contract(
        name="t",
        columns={"a": ColumnContract(), "b": ColumnContract(kind="integer")},
        denials=(Denial("order", "TRY_CAST(a AS DOUBLE) > b"),),
        keys=(("a", "b"),),
    )
    read = {name: ReadColumn(frame[name]) for name in frame.columns}
    wanted = by_texts(contract, frame)
    for rule in row_rules(contract):
        assert typed_verdict(rule, contract, read).tolist() == wanted[rule.name]


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_a_row_repeats_the_first_that_counts(
    rows: list[tuple[int | None, int]], counts: list[bool]
) -> None:
    frame = pl.DataFrame(rows, {"a": pl.Int32, "b": pl.Int64}, orient="row")
    among = np.array(counts[: len(rows)])
    seen: dict[tuple[int, int], int] = {}
    wanted = [
        -1 if row[0] is None or not among[i] or seen.setdefault((row[0], row[1]), i) == i
        else seen[(row[0], row[1])]
        for i, row in enumerate(rows)
    ]  # fmt: skip
    read = [ReadColumn(frame[name]) for name in frame.columns]
    assert repeats(read, among).tolist() == wanted


def test_running_numbers_repeat_nothing() -> None:
    assert repeats([ReadColumn(pl.Series([1, 2, 5]))]).tolist() == [-1, -1, -1]
    assert repeats([ReadColumn(pl.Series([1, 2, 2, 5, 1]))]).tolist() == [-1, -1, 1, -1, 0]


def test_a_cell_that_could_not_be_read_is_there_and_of_no_kind() -> None:
    contract = Contract(name="t", columns={"a": ColumnContract(kind="decimal", nullable=False)})
    read = {"a": ReadColumn(pl.Series([1.0, None, None]), np.array([False, True, False]))}
    verdicts = {r.name: typed_verdict(r, contract, read).tolist() for r in row_rules(contract)}
    assert verdicts == {"nullable:a": [False, False, True], "kind:a": [False, True, False]}


def test_codes_are_judged_by_what_they_stand_for() -> None:
    column = ColumnContract(kind="integer", minimum=5, domain=("7", "3"), unique=True)
    contract = Contract(name="t", columns={"a": column})
    codes = pl.Series([0, 1, None, 0, 2], dtype=pl.Int32)
    read = {"a": ReadColumn(codes, texts=lambda: pl.Series(["7", "x", "3"]).gather(codes))}
    verdicts = {
        r.name: np.flatnonzero(typed_verdict(r, contract, read)).tolist()
        for r in row_rules(contract)
    }
    assert verdicts == {"kind:a": [1], "domain:a": [1], "minimum:a": [4], "unique:a": [3]}


def test_bounds_are_instants_whatever_their_form() -> None:
    moments = pl.Series([datetime(2020, 1, 1, 11), datetime(2020, 1, 1, 12)])  # noqa: DTZ001
    for text in ("2020-01-01T12:00:00", "2020-01-01 14:00:00+02:00", "2020-01-01T11:59:59.999999Z"):
        contract = Contract(name="t", columns={"a": ColumnContract(kind="datetime", minimum=text)})
        rule = row_rules(contract)[-1]
        read = {"a": ReadColumn(moments)}
        assert typed_verdict(rule, contract, read).tolist() == [True, False]


def test_rules_without_sql_are_judged_over_texts() -> None:
    columns = {"a": ColumnContract(check_digit="luhn"), "b": ColumnContract()}
    contract = Contract(
        name="t",
        columns={**columns, "t": ColumnContract()},
        references=(Reference(("b",), "x.csv", ("k",)),),
        transactions=(TransactionRules(time="t", id="b"),),
    )
    read = {
        "a": ReadColumn(pl.Series([4111111111111111, 4111111111111112, 4111111111111111])),
        "b": ReadColumn(pl.Series(["p", "q", "q"])),
        "t": ReadColumn(pl.Series(["2024-01-01"] * 3)),
    }
    rules = row_rules(contract, {"x.csv": pl.DataFrame({"k": ["p"]})})
    assert {r.name: typed_verdict(r, contract, read).tolist() for r in rules} == {
        "check_digit:a": [False, True, False],
        "reference:b->x.csv:k": [False, True, True],
        "repeated-id:b": [False, False, True],
    }
