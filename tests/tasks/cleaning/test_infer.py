"""What a batch says of itself: kinds, codes, units, domains, dependencies; and what it does not."""

from __future__ import annotations

import random

import polars as pl
import pytest

from tasks.cleaning.contract.infer import InferConfig, infer, infer_column
from tasks.cleaning.contract.model import ContractError
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.profile.dependencies import DiscoveryConfig, discover
from tasks.cleaning.profile.units import unit_of


def column(values):
    return infer_column(pl.Series("c", values, dtype=pl.String), InferConfig())


def test_numbers_with_codes_for_missing_ones():
    found = column(["1", "22", "N/A", "-3", None, "4"] * 10)
    assert (found.kind, found.missing, found.nullable) == ("integer", ("N/A",), True)
    assert column(["1.5", "2", "3"] * 9).kind == "decimal"
    assert column(["1", "2", "three"]).kind == "text"
    # A code is no number, though it reads as one.
    assert column(["07030", "10115"] * 9).kind == "text"


def test_units_are_taken_away_only_where_there_are_several_ways_of_writing():
    several = column(["12 oz", "12.5 OZ.", "16 ounces", "9"] * 9)
    assert (several.kind, several.unit_spellings) == ("decimal", ("OZ.", "ounces", "oz"))
    assert column(["12 oz", "13 oz", "16 oz"] * 9).kind == "text"
    assert column(["98%", "57%", "100%"] * 9).kind == "text"
    assert column(["12 oz", "12 kg", "9"] * 9).kind == "text"


def test_percent_signs_are_read_by_the_size_of_the_numbers():
    assert column(["0.05", "0.06%", "0.07", "0.08%"] * 9).unit_spellings == ("%",)
    scaled = column(["0.05", "6%", "0.07", "8%"] * 9)
    assert (scaled.scales, scaled.unit_spellings) == ({"%": 0.01}, ())


def test_dates_are_read_where_only_one_reading_fits():
    assert column(["31.12.2024", "2024-12-30"] * 9).formats == ("%d.%m.%Y",)
    assert column(["31/12/2024", "01/02/2024"] * 9).formats == ("%d/%m/%Y",)
    assert column(["12/31/2024", "01/02/2024"] * 9).formats == ("%m/%d/%Y",)
    assert column(["03/12/2024", "01/02/2024"] * 9).kind == "text"  # day or month first?


def test_a_domain_holds_what_is_common_and_says_how_sure_it_is():
    found = column(["red"] * 50 + ["green"] * 49 + ["grxen"])
    assert found.domain == ("green", "red")
    assert found.confidence["domain"] == pytest.approx(0.99)
    assert column([f"name {i}" for i in range(100)]).domain == ()


def test_an_empty_column_promises_nothing():
    found = column([None, "", " "])
    assert (found.kind, found.nullable, found.domain) == ("text", True, ())


def places(rows=400, seed=1):
    draw = random.Random(seed)
    known = [(f"Z{i}", f"City {i}", f"S{i % 5}") for i in range(25)]
    rows = [(*draw.choice(known), f"{draw.random():.6f}") for _ in range(rows)]
    return pl.DataFrame(rows, schema=["zip", "city", "state", "noise"], orient="row")


def test_dependencies_are_found_among_errors_and_not_in_noise():
    frame = places()
    frame = frame.with_columns(frame["city"].scatter(list(range(0, 400, 40)), "Cxty"))
    found = {one.name: one.confidence for one in discover(frame)}
    assert {"zip->city", "zip->state", "city->state", "city->zip"} <= set(found)
    assert not any("noise" in name for name in found)
    assert "state->zip" not in found
    assert found["zip->city"] == pytest.approx(390 / 400, abs=0.01)
    assert found["zip->state"] < 1.0  # 1 is a person's word


def test_a_sample_finds_them_too():
    found = discover(places(20_000), config=DiscoveryConfig(sample_rows=500))
    assert "zip->city" in {one.name for one in found}


def test_a_glued_column_is_seen():
    frame = pl.DataFrame(
        {
            "city": ["Denton TX", "Reno NV", "Bend", "Salem", "Austin TX", "Waco"] * 5,
            "state": [None, None, "OR", "OR", None, "TX"] * 4
            + [None, "NV", "OR", "OR", None, "TX"],
        }
    )
    assert infer(frame, "c").columns["city"].suffix_of == "state"


def test_the_proposal_is_a_contract_that_can_be_written_and_read():
    contract = infer(places(), "places")
    assert from_toml(to_toml(contract)) == contract
    assert "confidence" in to_toml(contract)


@pytest.mark.parametrize("frame", [pl.DataFrame(), pl.DataFrame({"a": []})])
def test_nothing_is_inferred_from_nothing(frame):
    with pytest.raises(ContractError, match="nothing can be inferred"):
        infer(frame, "none")


@pytest.mark.parametrize(
    ("text", "unit"), [(" Oz.", "oz"), ("OUNCES", "oz"), ("%", "%"), ("cans", "")]
)
def test_units_by_their_spellings(text, unit):
    assert unit_of(text) == unit


def test_impossible_shares_are_refused():
    with pytest.raises(ValueError, match="follow must lie in"):
        DiscoveryConfig(follow=1.5)
