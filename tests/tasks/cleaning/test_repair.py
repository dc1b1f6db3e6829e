"""Repair: what is put right, what is left for a person, and the way back."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import ColumnContract, Contract, Dependency
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.repair.changes import undo
from tasks.cleaning.repair.engine import RepairConfig, repair
from tasks.cleaning.repair.normalise import normalise
from tasks.cleaning.repair.typos import typos


def columns_of(frame, **lines):
    return {name: lines.get(name, ColumnContract()) for name in frame.columns}


def shown(found):
    return {(r, c): s for r, c, s in found.select("row", "column", "suggestion").iter_rows()}


def test_normalisers_write_the_same_meaning_the_contracts_way():
    frame = pl.DataFrame(
        {
            "weight": ["12.0 oz", "3.50oz.", ".5 lb", "7", "about 7 oz", "N/A", " 8 "],
            "count": ["3.0", "3.5", "4.", "-", "1e3", None, "007"],
            "day": ["31.12.2024", "2024-12-31", "12/31/2024", "31.02.2024", "", None, "1.1.2024"],
            "state": ["ny", "NY", "n y", "CA\u00a0", "Ca", "TX", None],
        }
    )
    contract = from_toml(
        """
[columns.weight]
kind = "decimal"
unit = "oz"
unit_spellings = ["oz", "oz."]
scales = {lb = 16}
missing = ["N/A"]
[columns.count]
kind = "integer"
missing = ["-"]
[columns.day]
kind = "date"
formats = ["%d.%m.%Y"]
[columns.state]
domain = ["NY", "CA"]
"""
    )
    found = normalise(frame, contract)
    assert shown(found) == {
        (0, "weight"): "12",
        (1, "weight"): "3.5",
        (2, "weight"): "8",
        (5, "weight"): None,
        (6, "weight"): "8",
        (0, "count"): "3",
        (2, "count"): "4",
        (3, "count"): None,
        (0, "day"): "2024-12-31",
        (4, "day"): None,
        (6, "day"): "2024-01-01",
        (0, "state"): "NY",
        (3, "state"): "CA",
        (4, "state"): "CA",
    }
    rules = dict(found.filter(pl.col("column") == "state").select("row", "rule").iter_rows())
    assert rules == {0: "spelling", 3: "blank", 4: "spelling"}


def test_a_glued_value_goes_where_it_belongs_only_where_that_is_empty():
    frame = pl.DataFrame(
        {
            "city": ["Denton TX", "Denton TX", "Bend", "New York", "Reno, NV"],
            "state": [None, "TX", "OR", None, None],
        }
    )
    lines = {
        "city": ColumnContract(suffix_of="state"),
        "state": ColumnContract(domain=("TX", "NV", "OR")),
    }
    contract = Contract(name="c", columns=columns_of(frame, **lines))
    assert shown(normalise(frame, contract)) == {
        (0, "city"): "Denton",
        (0, "state"): "TX",
        (4, "city"): "Reno",
        (4, "state"): "NV",
    }


def zips(rows=300, seed=0):
    """A table in which zip fixes city and state, and its truth."""
    draw = random.Random(seed)
    places = [(f"{10_000 + 137 * i}", f"City {chr(65 + i)}{i}", f"S{i % 4}") for i in range(20)]
    rows = [draw.choice(places) for _ in range(rows)]
    return pl.DataFrame(rows, schema=["zip", "city", "state"], orient="row")


def declared(frame):
    fixes = tuple(Dependency(("zip",), name) for name in ("city", "state"))
    return Contract(name="zips", columns=columns_of(frame), dependencies=fixes)


def spoilt(frame, cells):
    for (row, column), value in cells.items():
        frame = frame.with_columns(frame[column].scatter(row, value))
    return frame


def test_declared_dependencies_put_right_what_differs():
    truth = zips()
    dirty = spoilt(truth, {(3, "city"): "Cxty", (40, "state"): "S9", (41, "state"): None})
    done = repair(dirty, declared(truth))
    assert done.frame.equals(truth)
    assert done.fixed
    changed = done.changes.select("row", "column", "before", "rule").rows()
    assert changed == [
        (3, "city", "Cxty", "dependency:zip->city"),
        (40, "state", "S9", "dependency:zip->state"),
        (41, "state", None, "dependency:zip->state"),
    ]
    assert "100%" not in done.changes["premise"][0]
    assert 0 < done.promised_harm <= 0.01


def test_a_row_that_contradicts_all_its_zip_fixes_has_a_wrong_zip_and_is_left():
    truth = zips()
    other = truth["zip"].filter(truth["zip"] != truth["zip"][0])[0]
    dirty = spoilt(truth, {(0, "zip"): other})
    done = repair(dirty, declared(truth))
    # City and state of the row contradict the zip of another place, if both differ there.
    wrong = dirty.filter(pl.col("zip") == other)
    if wrong["state"].n_unique() > 1:
        assert done.changes.is_empty()
        assert done.frame.equals(dirty)


def test_two_rows_that_agree_back_each_other_against_a_discovered_dependency_only():
    truth = zips()
    place = truth["zip"][0]
    rows = truth.with_row_index().filter(pl.col("zip") == place)["index"].to_list()
    dirty = spoilt(truth, {(rows[0], "city"): "Village", (rows[1], "city"): "Village"})
    guessed = Contract(
        name="g", columns=columns_of(truth), dependencies=(Dependency(("zip",), "city", 0.98),)
    )
    left = repair(dirty, guessed)
    assert left.changes.is_empty()
    assert set(left.review["row"]) == set(rows[:2])
    assert repair(dirty, declared(truth)).frame.equals(truth)


def test_a_dependency_with_many_exceptions_only_makes_suggestions():
    truth = zips()
    place = truth["zip"][0]
    rows = truth.with_row_index().filter(pl.col("zip") == place)["index"].to_list()
    assert len(rows) > 6
    cells = {(row, "city"): "Hamlet" for row in rows[:4]} | {(200, "city"): "Cxty"}
    dirty = spoilt(truth, cells)
    fixes = (Dependency(("zip",), "city", 0.98),)
    guessed = Contract(name="g", columns=columns_of(truth), dependencies=fixes)
    assert repair(dirty, guessed).changes.is_empty()
    loose = repair(dirty, guessed, RepairConfig(alpha=0.1))
    assert loose.changes["row"].to_list() == [200]


def test_typos_next_to_a_common_word_are_found_and_codes_are_let_alone():
    words = ["Aldburgh"] * 60 + ["Dorchester"] * 60 + ["Aldbxrgh", "Dorcester", "Exeter"]
    codes = [f"AB-{i % 30:03}" for i in range(120)] + ["AB-099", "AB-031", "AB-300"]
    frame = pl.DataFrame({"town": words, "code": codes})
    found, bounds = typos(frame, ["town", "code"], alpha=0.02)
    sure = found.filter(pl.col("confidence") > 0.5)
    assert shown(sure) == {(120, "town"): "Aldburgh", (121, "town"): "Dorchester"}
    assert bounds["code"].rate > bounds["town"].rate


def test_rare_words_of_one_kind_of_row_are_another_case():
    words = ["Aldburgh"] * 60 + ["Dorchester"] * 60 + ["Aldborgh", "Aldbergh", "Dorchister"]
    frame = pl.DataFrame({"town": words, "land": ["GB"] * 120 + ["DK"] * 3})
    assert typos(frame, ["town"], alpha=0.02)[0].is_empty()


def test_values_outside_a_declared_domain_go_to_the_nearest():
    frame = pl.DataFrame({"town": ["Aldburgh"] * 5 + ["Aldbxrgh"] * 4 + ["Elsewhere"]})
    found, _ = typos(frame, ["town"], alpha=0.2, domains={"town": ("Aldburgh", "Dorchester")})
    assert shown(found) == {(row, "town"): "Aldburgh" for row in range(5, 9)}


def test_the_bound_grows_with_exceptions():
    assert HarmBound(0, 99).rate == pytest.approx(0.01)
    assert HarmBound(0, 99).holds(0.01)
    assert not HarmBound(1, 99).holds(0.01)


@pytest.mark.parametrize(("field", "value"), [("alpha", 0.5), ("alpha", -0.1), ("max_passes", 0)])
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        RepairConfig(**{field: value})


def test_undo_takes_back_what_is_chosen_and_refuses_another_table():
    truth = zips()
    dirty = spoilt(truth, {(3, "city"): "Cxty", (40, "state"): "S9"})
    done = repair(dirty, declared(truth))
    frame, kept = undo(done.frame, done.changes, pl.col("row") == 3)
    assert frame[3, "city"] == "Cxty"
    assert frame[40, "state"] == truth[40, "state"]
    assert kept["row"].to_list() == [40]
    with pytest.raises(ValueError, match="row 3, column 'city' holds 'Cxty'"):
        undo(frame, done.changes)


cells = st.dictionaries(
    st.tuples(st.integers(0, 59), st.sampled_from(["zip", "city", "state"])),
    st.none() | st.sampled_from(["City A0", "Citx A0", "S1", "10137", ""]) | st.text(max_size=5),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(cells, st.booleans())
def test_every_repair_comes_to_rest_is_repeatable_and_can_be_undone(wrong, vouched):
    dirty = spoilt(zips(60), wrong)
    contract = declared(dirty)
    if not vouched:
        fixes = tuple(Dependency(d.determinant, d.dependent, 0.97) for d in contract.dependencies)
        contract = Contract(name="g", columns=contract.columns, dependencies=fixes)
    done = repair(dirty, contract, RepairConfig(alpha=0.1, max_passes=20))
    assert done.fixed
    again = repair(dirty, contract, RepairConfig(alpha=0.1, max_passes=20))
    assert again.changes.equals(done.changes)
    assert repair(done.frame, contract, RepairConfig(alpha=0.1)).frame.equals(done.frame)
    restored, kept = undo(done.frame, done.changes)
    assert restored.equals(dirty)
    assert kept.is_empty()


def test_columns_may_be_called_anything():
    names = ["count", "row", "observed", "value", "_0", "_next", "self", "text"]
    words = [" Aldburgh"] + ["Aldburgh"] * 30 + ["Dorchester"] * 30 + ["Aldbxrgh"]
    frame = pl.DataFrame(dict.fromkeys(names, words))
    contract = infer(frame, "names")
    done = repair(frame, contract, RepairConfig(alpha=0.4))
    assert {(r, c) for r, c in done.changes.select("row", "column").iter_rows()} == {
        (row, name) for row in (0, 61) for name in names
    }
    assert undo(done.frame, done.changes)[0].equals(frame)


def test_numbers_keep_their_digits_and_what_a_float_cannot_hold_is_left():
    held = ["12345678901234567 kg", "0.0000000000001 kg", "1e400 kg", "+1.50 kg", ".5 kg", "٣ kg"]
    frame = pl.DataFrame({"w": held})
    contract = from_toml("[columns.w]\nkind = 'decimal'\nunit_spellings = ['kg']")
    assert repair(frame, contract).frame["w"].to_list() == [
        "12345678901234567", "0.0000000000001", "1e400", "1.5", "0.5", "٣ kg",
    ]  # fmt: skip
    scaled = from_toml("[columns.w]\nkind = 'decimal'\nscales = {kg = 1000}")
    kept = repair(frame, scaled).frame["w"].to_list()
    assert (kept[0], kept[2], kept[3], kept[4]) == (held[0], held[2], "1500", "500")


def test_short_years_are_no_years_of_antiquity():
    frame = pl.DataFrame({"day": ["01.02.24", "13.02.24", "22.03.21"] * 4})
    assert infer(frame, "d").columns["day"].kind == "text"
    contract = from_toml("[columns.day]\nkind = 'date'\nformats = ['%d.%m.%Y']")
    assert repair(frame, contract).frame.equals(frame)


def test_a_group_that_is_mostly_missing_fills_nothing():
    prices = ["5"] * 2 + [None] * 18 + ["7"] * 20
    frame = pl.DataFrame({"plan": ["p"] * 20 + ["q"] * 20, "price": prices})
    fixes = (Dependency(("plan",), "price"),)
    contract = Contract(name="c", columns=columns_of(frame), dependencies=fixes)
    assert repair(frame, contract).changes.is_empty()


def test_few_common_names_say_nothing_of_nearness():
    frame = pl.DataFrame({"n": ["Anna"] * 600 + ["Zoe"] * 200 + ["Anne", "Ana", "Annas", "Anja"]})
    assert not typos(frame, ["n"], alpha=0.001)[0]["confidence"].max() > 0.5


def test_zones_and_unit_symbols_keep_their_meaning():
    contract = from_toml(
        "[columns.at]\nkind = 'datetime'\nformats = ['%d.%m.%Y %H:%M %z', '%d.%m.%Y %H:%M']\n"
        "[columns.unit]\ndomain = ['mW', 'kg']\nconfidence = { domain = 0.9 }"
    )
    frame = pl.DataFrame(
        {
            "at": ["01.02.2024 12:00 +0200", "01.02.2024 12:00", "01.02.2024 12:00 CET"],
            "unit": ["MW", "KG", "mw"],
        }
    )
    found = normalise(frame, contract).select("row", "column", "suggestion").rows()
    assert found == [
        (0, "at", "2024-02-01T10:00:00Z"),
        (1, "at", "2024-02-01T12:00:00"),
        (1, "unit", "kg"),
        (2, "unit", "mW"),
    ]


def test_the_promise_sums_what_every_round_may_harm_over_cells_that_are_filled_and_not_doubted():
    truth = zips()
    dirty = spoilt(truth, {(3, "city"): "Cxty", (40, "state"): "S9"})
    one = repair(dirty, declared(truth))
    # Each rule may harm (0 + 1) / (300 + 1) of 300 cells; 898 of 900 cells are not in doubt.
    assert one.promised_harm == pytest.approx(2 * 300 / 301 / 898)
    # Missing cells are no correct cells that could be harmed: they do not make it smaller.
    wide = dirty.with_columns(pl.lit(None, pl.String).alias(f"m{i}") for i in range(9))
    contract = Contract(
        name="zips", columns=columns_of(wide), dependencies=declared(truth).dependencies
    )
    assert repair(wide, contract).promised_harm == pytest.approx(one.promised_harm)


def test_what_a_rule_may_harm_is_counted_in_every_round_that_it_works_in():
    # Only when the city of row 3 is mended, its state can be.
    truth = zips()
    chained = Contract(
        name="zips",
        columns=columns_of(truth),
        dependencies=(
            Dependency(("zip",), "city"),
            Dependency(("city",), "state"),
        ),
    )
    done = repair(spoilt(truth, {(3, "city"): "Cxty", (3, "state"): "S9"}), chained)
    assert done.frame.equals(truth)
    assert dict(done.changes.select("rule", "pass").iter_rows()) == {
        "dependency:zip->city": 1,
        "dependency:city->state": 2,
    }
    twice = spoilt(truth, {(3, "city"): "Cxty", (3, "state"): "S9", (5, "state"): "S9"})
    again = repair(twice, chained)
    assert again.changes.filter(rule="dependency:city->state")["pass"].to_list() == [1, 2]
    assert again.promised_harm > done.promised_harm + 300 / 301 / 900
