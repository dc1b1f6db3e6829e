"""Row by row is as the whole table at once, whatever the batches."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.clean import CleanConfig, clean
from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError, Dependency
from tasks.cleaning.repair.engine import RepairConfig
from tasks.cleaning.repair.normalise import BLANK_CHARACTERS, BLANKS
from tasks.cleaning.rows import RowCleaner, across_rows, without_across_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = CleanConfig(repair=RepairConfig(across_rows=False))
CONTRACT = Contract(
    name="goods",
    columns={
        "id": ColumnContract(nullable=False, pattern="[A-Z][0-9]+"),
        "weight": ColumnContract(
            kind="decimal",
            unit="kg",
            unit_spellings=("kg", "kilo"),
            scales={"t": 1000.0},
            missing=("n/a", "?"),
            maximum=5000,
        ),
        "count": ColumnContract(kind="integer", minimum=0),
        "day": ColumnContract(kind="date", formats=("%d.%m.%Y",)),
        "colour": ColumnContract(domain=("red", "dark blue"), confidence={"domain": 0.9}),
        "state": ColumnContract(domain=("TX", "NY"), missing=("-",)),
        "city": ColumnContract(suffix_of="state"),
    },
)
CELLS = {
    "id": ["A1", " B22 ", "b3", None, "Z9\u00a0"],
    "weight": ["1", "2.50 kg", "3kilo", "4 t", "n/a", "?", "9999", "1.0000000000001", "x", None],
    "count": ["1", "2.0", "-3", "4.5", " 7", ""],
    "day": ["2024-02-29", "29.02.2024", "30.02.2024", "1.1.24", None],
    "colour": ["red", "RED", "dark  Blue", "green", None],
    "state": ["TX", "ny", "-", None, "TX "],
    "city": ["Denton TX", "Denton  NY", "New York", "Austin, TX", None],
}
rows = st.lists(st.tuples(*(st.sampled_from(v) for v in CELLS.values())), max_size=30)


def frame_of(table):
    return pl.DataFrame(table, schema=dict.fromkeys(CELLS, pl.String), orient="row")


@settings(deadline=None, max_examples=60)
@given(rows, st.lists(st.integers(0, 30), max_size=4))
def test_batches_give_what_the_whole_gives(table, cuts):
    frame = frame_of(table)
    whole = clean(frame, CONTRACT, "s", CONFIG, now=NOW)
    cleaner = RowCleaner(CONTRACT, CONFIG)
    bounds = sorted({0, frame.height, *(c for c in cuts if c < frame.height)})
    parts = [
        cleaner.clean(frame[a:b], np.arange(a, b) + 100, "s", NOW)
        for a, b in itertools.pairwise(bounds)
    ] or [cleaner.clean(frame, np.arange(0), "s", NOW)]
    assert pl.concat([p.frame for p in parts]).equals(whole.frame)
    assert pl.concat([p.rows for p in parts]).to_list() == [r + 100 for r in whole.rows]
    aside = pa.concat_tables([p.quarantine for p in parts])
    assert [r | {"row": r["row"] - 100} for r in aside.to_pylist()] == whole.quarantine.to_pylist()
    for name, keys in (("changes", ["row", "pass"]), ("review", ["row"])):
        found = pl.concat([getattr(p, name) for p in parts])
        found = found.with_columns(pl.col("row") - 100).drop("order", strict=False)
        wanted = getattr(whole, name).drop("order", strict=False)
        by = [*keys, "column"]
        assert found.sort(by, maintain_order=True).equals(wanted.sort(by, maintain_order=True))
    for key in ("rows_in", "clean", "repaired", "quarantined"):
        assert sum(p.counts[key] for p in parts) == whole.counts[key]


def test_columns_are_looked_at_and_repairs_left_out_when_asked():
    cleaner = RowCleaner(CONTRACT, replace(CONFIG, repairs=False))
    frame = frame_of([("A1", "2 kg", "1", None, None, None, None)])
    done = cleaner.clean(frame, np.array([7]), "s", NOW)
    assert done.changes.is_empty()
    assert done.quarantine.to_pylist()[0]["rule"] == "kind:weight"
    with pytest.raises(ContractError, match="missing"):
        RowCleaner(CONTRACT, CONFIG).clean(frame.drop("city"), np.array([7]), "s", NOW)


def test_lines_that_look_at_other_rows_are_refused_by_name():
    columns = {"id": ColumnContract(unique=True), "zip": ColumnContract(), "city": ColumnContract()}
    contract = Contract(
        name="t",
        columns={**columns, "full": ColumnContract(suffix_of="zip")},
        keys=(("id", "zip"),),
        dependencies=(Dependency(("zip",), "city"),),
    )
    with pytest.raises(ContractError, match="unique:id, key:id\\+zip, dependency:zip->city, suf"):
        RowCleaner(contract, CONFIG)
    assert across_rows(without_across_rows(contract)) == []
    RowCleaner(without_across_rows(contract), CONFIG)
    with pytest.raises(ValueError, match="across_rows=False"):
        RowCleaner(without_across_rows(contract), CleanConfig())


def test_blank_characters_are_those_of_the_expression():
    every = pl.Series([chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000])
    blank = every.filter(every.str.contains(f"^{BLANKS}$"))
    assert set(blank) == set(BLANK_CHARACTERS)


def test_nothing_across_rows_is_left_of_an_inferred_contract():
    readings = pl.DataFrame(
        {
            "at": [f"2026-01-01T{i // 60:02}:{i % 60:02}:00" for i in range(600)],
            "temp": [f"{20 + (i * 7 % 11) / 10:.1f}" for i in range(600)],
        }
    )
    contract = infer(readings, "sensor")
    assert across_rows(contract)
    assert across_rows(without_across_rows(contract)) == []
